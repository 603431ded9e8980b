/* The tab of stories: a story, a question, and the sentences that the answer rests on. */
import { make, shape } from "./draw.js";
import { TEXTS, say } from "./texts.js";

Object.assign(TEXTS.en, {
  answer_ask: "Ask about a little story", answer_hint: "It knows the world of the bAbI stories: who goes where, who has what. A sentence in bold is one that the answer rests on; the bars tell how far the gates opened at it, each time the story was read.", answer_passage: "Story", answer_question: "Question",
  answer_go: "Answer", answer_example: "Example", answer_sure: "confidence {p}%", answer_unknown: "Words it does not know: {words}", answer_sentence: "Sentence", answer_rests: "Rests on it", answer_reading: "Reading {n}",
});
Object.assign(TEXTS.zh, {
  answer_ask: "就一个小故事提问", answer_hint: "它只懂 bAbI 式的英文小故事：谁去了哪里，谁拿着什么。粗体的句子是答案的依据；条形表示每遍阅读时门对该句打开的程度。", answer_passage: "故事", answer_question: "问题",
  answer_go: "回答", answer_example: "示例", answer_sure: "置信度 {p}%", answer_unknown: "它不认识的词：{words}", answer_sentence: "句子", answer_rests: "作为依据", answer_reading: "第 {n} 遍",
});

let passage = "", question = "";

function draw(told) {
  const bar = (value) => make("td", {}, gauge(value), make("small", { kind: "share", text: value.toFixed(2) }));
  const rows = told.evidence.map(([sentence, weight, readings]) => make("tr", { kind: weight >= 0.5 ? "named" : "" }, make("th", { scope: "row", text: sentence }), bar(weight), ...readings.map(bar)));
  const readings = told.evidence[0]?.[2] ?? [];
  const head = [say("answer_sentence"), say("answer_rests"), ...readings.map((_, place) => say("answer_reading", { n: place + 1 }))];
  return make("div", { kind: "card" },
    make("p", {}, make("b", { kind: "verdict", text: told.answer ?? "–" }), ` ${say("answer_sure", { p: Math.round(100 * told.confidence) })}`),
    told.unknown.length ? make("p", { text: say("answer_unknown", { words: told.unknown.join(", ") }) }) : null,
    make("div", { kind: "scroll", tabindex: 0 }, make("table", { kind: "evidence" }, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", text })))), make("tbody", {}, ...rows))));
}

function gauge(value) {
  const svg = shape("svg", { viewBox: "0 0 84 8", "aria-hidden": "true" });
  svg.append(shape("rect", { class: "track", width: 84, height: 8 }), shape("rect", { class: "fill", width: 84 * value, height: 8 }));
  return svg;
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
    try { out.replaceChildren(draw(await ask("/v1/answer", null, { passage, question }))); } catch (error) { out.replaceChildren(make("p", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) })); }
  });
  section.replaceChildren(form, out);
}
