/* The tab of the character model: type, and see what surprises it and what any unit does; or let it write on. */
import { paintCharacters } from "./chars.js";
import { make } from "./draw.js";
import { TEXTS, say } from "./texts.js";

Object.assign(TEXTS.en, {
  chars_ask: "Type, and watch it read", chars_hint: "Each character is coloured by how surprised the model was (in nats), or by what one unit of its top layer does. It knows the texts that it was trained on.",
  chars_go: "Write on", chars_heat: "Temperature",
});
Object.assign(TEXTS.zh, {
  chars_ask: "输入文字，看它阅读", chars_hint: "每个字符的颜色表示模型的意外程度（单位：奈特），或顶层某个单元的活动。它只熟悉训练过的文字。",
  chars_go: "继续写", chars_heat: "温度",
});

let text = "It was a quiet evening, and ", told = null, timer = 0, turn = 0, seed = 0, writing = false;

export function open(section, ask) {
  const area = make("textarea", { rows: 4, "aria-label": say("chars_ask"), maxlength: 2000 });
  area.value = text;
  const unit = make("input", { type: "number", min: 0, value: 0, "aria-label": say("chars_show") }), heat = make("input", { type: "range", min: 0, max: 1.5, step: 0.1, value: 0.7, "aria-label": say("chars_heat") });
  const name = make("span", { text: say("chars_surprise") }), shown = make("p", { kind: "chars" }), note = make("p", { kind: "told", "aria-live": "polite" });
  const problem = (error) => note.replaceChildren(make("span", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) }));

  const draw = () => {
    if (!told) return;
    const number = Math.min(Number(unit.value) || 0, told.shape[1]);
    name.textContent = number ? say("chars_unit", { n: number }) : say("chars_surprise");
    shown.replaceChildren(...paintCharacters(told, number, 0, (line) => { note.textContent = line; }));
  };
  const read = async () => {
    const mine = ++turn;
    text = area.value;
    if (!text) { shown.replaceChildren(); return; }
    try {
      const found = await ask("/v1/explain/generate", null, { text });
      if (mine === turn) { told = found; draw(); }
    } catch (error) { if (mine === turn) problem(error); }
  };
  area.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(read, 120); });
  unit.addEventListener("input", draw);
  const form = make("form", { kind: "card" }, make("h2", { text: say("chars_ask") }), make("p", { kind: "soft", text: say("chars_hint") }), area,
    make("p", { kind: "controls" }, make("label", {}, `${say("chars_show")} `, unit), name, make("label", {}, `${say("chars_heat")} `, heat), make("button", { type: "submit", kind: "button first", text: say("chars_go") })), shown, note);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (writing) return;
    writing = true;
    try {
      await ask.events("/v1/generate", { prompt: area.value, length: 128, temperature: heat.value, seed: seed++ }, (piece) => {
        area.value = (area.value + piece.text).slice(-2000);
        area.scrollTop = area.scrollHeight;
      });
      await read();
    } catch (error) { problem(error); } finally { writing = false; }
  });
  section.replaceChildren(form);
  read();
}
