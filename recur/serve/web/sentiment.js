/* The tab of sentiment: a text, what each word had to do with the judgement, and how it changed from word to word. */
import { make } from "./draw.js";
import { drawFeeling } from "./feel.js";
import { TEXTS, say } from "./texts.js";

Object.assign(TEXTS.en, {
  feel_ask: "How does it sound?", feel_hint: "A review or any other text, in English or Chinese. Words in orange speak for it, words in blue against it.",
  feel_go: "Judge it",
});
Object.assign(TEXTS.zh, {
  feel_ask: "听起来怎么样？", feel_hint: "一段评论或其他文字，中英文皆可。橙色的词表示好评，蓝色的词表示差评。",
  feel_go: "判断",
});

let text = "";

export function open(section, ask) {
  const area = make("textarea", { rows: 4, "aria-label": say("feel_ask"), maxlength: 20000 });
  area.value = text;
  const out = make("div", { "aria-live": "polite" });
  const form = make("form", { kind: "card" }, make("h2", { text: say("feel_ask") }), make("p", { kind: "soft", text: say("feel_hint") }), area, make("button", { type: "submit", kind: "button first", text: say("feel_go") }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    text = area.value;
    try { out.replaceChildren(drawFeeling(await ask("/v1/sentiment", null, { text }))); } catch (error) { out.replaceChildren(make("p", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) })); }
  });
  section.replaceChildren(form, out);
}
