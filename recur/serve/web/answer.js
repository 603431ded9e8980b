/* The tab of stories: a story, a question, and the sentences that the answer rests on. */
import { make } from "./draw.js";
import { TEXTS, say } from "./texts.js";

Object.assign(TEXTS.en, {
  answer_ask: "Ask about a little story", answer_hint: "It knows the world of the bAbI stories: who goes where, who has what. The darker a sentence, the more the answer rests on it.", answer_passage: "Story", answer_question: "Question",
  answer_go: "Answer", answer_example: "Example", answer_sure: "confidence {p}%", answer_unknown: "Words it does not know: {words}",
});
Object.assign(TEXTS.zh, {
  answer_ask: "就一个小故事提问", answer_hint: "它只懂 bAbI 式的英文小故事：谁去了哪里，谁拿着什么。句子颜色越深，答案越依据它。", answer_passage: "故事", answer_question: "问题",
  answer_go: "回答", answer_example: "示例", answer_sure: "置信度 {p}%", answer_unknown: "它不认识的词：{words}",
});

let passage = "", question = "";

function draw(told) {
  const sentences = told.evidence.map(([sentence, weight]) => {
    const line = make("li", { text: `${sentence} ` }, make("span", { kind: "share", text: `${Math.round(100 * weight)}%` }));
    line.style.background = `color-mix(in srgb, var(--wash) ${Math.round(100 * weight)}%, transparent)`;
    return line;
  });
  return [
    make("p", {}, make("b", { text: told.answer ?? "–" }), ` · ${say("answer_sure", { p: Math.round(100 * told.confidence) })}`),
    told.unknown.length ? make("p", { text: say("answer_unknown", { words: told.unknown.join(", ") }) }) : "", make("ol", { kind: "evidence" }, ...sentences),
  ];
}

export function open(section, ask) {
  const area = make("textarea", { rows: 6, "aria-label": say("answer_passage"), maxlength: 20000 });
  const line = make("textarea", { rows: 1, "aria-label": say("answer_question"), placeholder: say("answer_question"), maxlength: 1000 });
  area.value = passage; line.value = question;
  const out = make("div", { "aria-live": "polite" });
  const example = make("button", { type: "button", kind: "chip", text: say("answer_example"), onclick: () => {
    area.value = "Mary went to the garden. John went to the office. Mary picked up the football there. Mary went to the kitchen.";
    line.value = "Where is the football?";
    form.requestSubmit();
  } });
  const form = make("form", { kind: "card" }, make("h2", { text: say("answer_ask") }), make("p", { kind: "soft", text: say("answer_hint") }), area, line,
    make("p", { kind: "controls" }, make("button", { type: "submit", kind: "button first", text: say("answer_go") }), example));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    passage = area.value; question = line.value;
    try { out.replaceChildren(...draw(await ask("/v1/answer", null, { passage, question }))); } catch (error) { out.replaceChildren(make("p", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) })); }
  });
  section.replaceChildren(form, out);
}
