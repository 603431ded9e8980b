/* The tab of translation: a text in another language; pointing at a word shows the word that it was read from. */
import { make } from "./draw.js";
import { TEXTS, say } from "./texts.js";
import { drawTranslation } from "./tongue.js";

Object.assign(TEXTS.en, { tongue_ask: "Say it in another language", tongue_hint: "Point at a word of the translation, or use Tab: the word that it was read from lights up.", tongue_go: "Translate", tongue_way: "Direction" });
Object.assign(TEXTS.zh, { tongue_ask: "换一种语言", tongue_hint: "指向译文中的一个词，或用 Tab 键，就会亮起它所依据的原词。", tongue_go: "翻译", tongue_way: "方向" });

let text = "", way = "";

export function open(section, ask, task) {
  const area = make("textarea", { rows: 4, "aria-label": say("tongue_ask"), maxlength: 20000 });
  area.value = text;
  const choose = make("select", { "aria-label": say("tongue_way") }, ...task.directions.map(([from, to]) => make("option", { value: `${from} ${to}`, text: `${from} → ${to}` })));
  if (way) choose.value = way;
  const out = make("div", { "aria-live": "polite" });
  const form = make("form", { kind: "card" }, make("h2", { text: say("tongue_ask") }), make("p", { kind: "soft", text: say("tongue_hint") }), area, make("p", { kind: "controls" }, choose, make("button", { type: "submit", kind: "button first", text: say("tongue_go") })));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    text = area.value; way = choose.value;
    const [source, target] = way.split(" ");
    try { out.replaceChildren(drawTranslation(await ask("/v1/translate", null, { text, source, target, detail: true }))); } catch (error) { out.replaceChildren(make("p", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) })); }
  });
  section.replaceChildren(form, out);
}
