/* The tab of sentiment: a text, what each word had to do with the judgement, and how it changed from word to word. */
import { make, shape } from "./draw.js";
import { TEXTS, percent, say } from "./texts.js";

Object.assign(TEXTS.en, {
  feel_ask: "How does it sound?", feel_hint: "A review or any other text, in English or Chinese. Words in orange speak for it, words in blue against it.",
  feel_go: "Judge it", feel_pos: "good", feel_neg: "bad", feel_running: "How good it sounds after each word",
});
Object.assign(TEXTS.zh, {
  feel_ask: "听起来怎么样？", feel_hint: "一段评论或其他文字，中英文皆可。橙色的词表示好评，蓝色的词表示差评。",
  feel_go: "判断", feel_pos: "好评", feel_neg: "差评", feel_running: "读到每个词之后好评的概率",
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
    try { out.replaceChildren(draw(await ask("/v1/sentiment", null, { text }))); } catch (error) { out.replaceChildren(make("p", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) })); }
  });
  section.replaceChildren(form, out);
}

function draw(told) {
  const most = Math.max(0.5, ...told.words.map(([, weight]) => Math.abs(weight)));
  const words = make("p", { kind: "weighed", lang: told.language });
  told.words.forEach(([word, weight], place) => {
    const level = Math.round((4 * Math.abs(weight)) / most);
    if (place && told.language !== "zh") words.append(" ");
    words.append(make("span", { kind: level ? `${weight > 0 ? "for" : "against"}${level}` : "", title: weight.toFixed(2), text: word }));
  });
  const body = make("div", { kind: "card" }, make("p", {}, make("b", { kind: "verdict", text: say(`feel_${told.label}`) ?? told.label }), ` ${percent(told.probability)}`), words);
  const running = told.running ?? [];
  if (running.length > 1) {
    const points = running.map(([, p], place) => `${(100 * place) / (running.length - 1)},${38 - 36 * p}`).join(" ");
    const curve = shape("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", class: "curve", role: "img", "aria-label": `${say("feel_running")}: ${running.map(([word, p]) => `${word} ${percent(p)}`).join(", ")}` });
    curve.append(shape("line", { x1: 0, x2: 100, y1: 20, y2: 20, class: "zero" }), shape("polyline", { points, class: "line" }));
    body.append(make("p", { kind: "soft", text: say("feel_running") }), curve);
  }
  return body;
}
