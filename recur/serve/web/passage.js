/* The tab of passages: a question is answered with a part of the passage, or with nothing. */
import { make } from "./draw.js";
import { drawSpan } from "./span.js";
import { TEXTS, say } from "./texts.js";

Object.assign(TEXTS.en, {
  passage_ask: "Ask about a passage", passage_hint: "Any text, and a question about it. The answer is a part of the text, or that there is none.", passage_text: "Passage", passage_question: "Question", passage_go: "Find it", passage_example: "Example",
  passage_limits: "Small and quick rather than wise: it learned from {data}. It finds the right sentence more often than the right words.",
});
Object.assign(TEXTS.zh, {
  passage_ask: "就一段文字提问", passage_hint: "任意一段文字，和一个关于它的问题。答案是文中的一处，或者没有答案。", passage_text: "文字", passage_question: "问题", passage_go: "查找", passage_example: "示例",
  passage_limits: "它小而快，但并不博学：学习数据为 {data}。它找对句子多于找对词语。",
});

const EXAMPLES = {
  en: ["The lighthouse was built in 1872 by Anna Meier, an engineer from Bremen. It is 31 metres high and can be seen from 20 miles away. In 1954 a storm broke its lamp, and for two years ships had to find the harbour without it.", "Who built the lighthouse?"],
  zh: ["这座灯塔由来自不来梅的工程师安娜于1872年建成。它高31米，在20海里外就能看到。1954年的一场风暴打碎了灯，此后两年船只只能摸黑进港。", "灯塔有多高？"],
};
let passage = "", question = "", told = null;

export function open(section, ask, task) {
  const area = make("textarea", { rows: 7, "aria-label": say("passage_text"), placeholder: say("passage_text"), maxlength: 100000 });
  const line = make("textarea", { rows: 1, "aria-label": say("passage_question"), placeholder: say("passage_question"), maxlength: 1000 });
  area.value = passage; line.value = question;
  const out = make("div", { "aria-live": "polite" });
  const example = make("button", { type: "button", kind: "chip", text: say("passage_example"), onclick: () => {
    [area.value, line.value] = EXAMPLES[document.documentElement.lang] ?? EXAMPLES.en;
    form.requestSubmit();
  } });
  const form = make("form", { kind: "card" }, make("h2", { text: say("passage_ask") }), make("p", { kind: "soft", text: say("passage_hint") }), area, line,
    make("p", { kind: "controls" }, make("button", { type: "submit", kind: "button first", text: say("passage_go") }), example), task.learned ? make("p", { kind: "soft", text: say("passage_limits", { data: task.learned }) }) : null);
  line.addEventListener("keydown", (event) => { if (event.key === "Enter" && !event.isComposing) { event.preventDefault(); form.requestSubmit(); } });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    passage = area.value; question = line.value;
    try { told = await ask("/v1/span", null, { passage, question, detail: true }); out.replaceChildren(drawSpan(told)); } catch (error) { out.replaceChildren(make("p", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) })); }
  });
  section.replaceChildren(form, out);
  if (told) out.append(drawSpan(told));
}
