/* A text as a character model reads it: how surprised it was, what a unit did, which unit follows what. */
import { clamp, make, shape, tint, unpack } from "./draw.js";
import { TEXTS, percent, say } from "./texts.js";

Object.assign(TEXTS.en, {
  chars_surprise: "surprise", chars_unit: "unit {n}", chars_show: "Colour by unit (0: by surprise)", chars_expected: "expected: {list}", chars_point: "Point at a character to see what was expected in its place.", chars_layer: "Layer",
  chars_follows: "Which unit follows what: its output against the rule, as a correlation over {n} characters", chars_rule: "Rule", chars_correlation: "Correlation", chars_none: "no unit: the text has none of it",
  chars_gates: "How much of the time a unit's gate is shut (to the right) and open (upwards); each point is a unit",
});
Object.assign(TEXTS.zh, {
  chars_surprise: "意外程度", chars_unit: "单元 {n}", chars_show: "按单元着色（0：按意外程度）", chars_expected: "预期：{list}", chars_point: "指向一个字符，看看模型在那里预期什么。", chars_layer: "层",
  chars_follows: "哪个单元跟随什么：单元输出与规则在 {n} 个字符上的相关系数", chars_rule: "规则", chars_correlation: "相关系数", chars_none: "无：文字中没有出现",
  chars_gates: "每个单元的门关闭（向右）与打开（向上）的时间比例；每点为一个单元",
});

/* The characters, coloured by their surprise, or by unit `unit` (from 1 on) of a layer; `tell` is called with a line. */
export function paintCharacters(told, unit, layer, tell) {
  const [steps, units] = told.shape.slice(-2), value = unpack(told.hidden), hidden = (place) => value((layer * steps + place) * units + unit - 1);
  return [...told.text].map((character, place) => {
    const nats = told.nats[place] ?? 0, amount = unit ? hidden(place) : Math.min(1, nats / 6);
    const cell = make("span", { text: character === "\n" ? "⏎\n" : character });
    cell.style.backgroundColor = tint(amount);
    cell.addEventListener("pointerenter", () => {
      const list = told.expected[place].map(([each, p]) => `${each === "\n" ? "⏎" : each} ${Math.round(100 * p)} %`).join(" · ");
      tell(`${(unit ? amount : nats).toFixed(2)} · ${say("chars_expected", { list })}`);
    });
    return cell;
  });
}

export function drawReading(told) {
  const [layers, , units] = told.shape;
  const shown = make("p", { kind: "chars" }), note = make("p", { kind: "told", "aria-live": "polite", text: say("chars_point") }), name = make("b");
  const number = make("input", { type: "number", min: 0, max: units, value: 0, "aria-label": say("chars_show") });
  const floor = make("select", { "aria-label": say("chars_layer") }, ...Array.from({ length: layers }, (_, place) => make("option", { value: place, text: `${place + 1}` })));
  const draw = () => {
    const unit = clamp(Math.round(Number(number.value)) || 0, 0, units);
    name.textContent = unit ? say("chars_unit", { n: unit }) : say("chars_surprise");
    shown.replaceChildren(...paintCharacters(told, unit, Number(floor.value), (text) => { note.textContent = text; }));
  };
  number.addEventListener("input", draw);
  floor.addEventListener("change", draw);
  const choose = (layer, unit) => { floor.value = layer - 1; number.value = unit; draw(); };
  draw();
  return make("div", { kind: "card" },
    make("p", { kind: "controls" }, make("label", {}, `${say("chars_show")} `, number), make("label", {}, `${say("chars_layer")} `, floor), name),
    note, shown, follows(told, choose), gates(told));
}

function follows(told, choose) {
  const rows = told.follows.map((rule) => make("tr", {}, make("th", { scope: "row", text: rule.rule }), make("td", {}, ...(rule.units.length ? rule.units.flatMap((each) => [
    make("button", { type: "button", kind: "chip", text: `${told.shape[0] > 1 ? `${say("layer", { n: each.layer })}, ` : ""}${say("chars_unit", { n: each.unit })}: ${each.correlation.toFixed(2)}`, onclick: () => choose(each.layer, each.unit) }), " ",
  ]) : [say("chars_none")]))));
  const head = make("tr", {}, make("th", { scope: "col", text: say("chars_rule") }), make("th", { scope: "col", text: say("chars_correlation") }));
  return make("div", {}, make("p", { kind: "soft", text: say("chars_follows", { n: told.read }) }), make("div", { kind: "scroll", tabindex: 0 }, make("table", { kind: "follows" }, make("thead", {}, head), make("tbody", {}, ...rows))));
}

function gates(told) {
  const drawn = told.saturated.map((kind) => {
    const svg = shape("svg", { viewBox: "-0.03 -0.03 1.06 1.06", role: "img", "aria-label": `${say(`gate_${kind.gate}`)}: ${say("shut")} ${percent(kind.shut)}, ${say("open")} ${percent(kind.open)}` });
    kind.units.forEach(([shut, open]) => svg.append(shape("circle", { cx: shut, cy: 1 - open, r: 0.015 })));
    return make("figure", {}, svg, make("figcaption", { text: `${say("layer", { n: kind.layer })}, ${say(`gate_${kind.gate}`)}: ${say("shut")} ${percent(kind.shut)}, ${say("open")} ${percent(kind.open)}` }));
  });
  return drawn.length ? make("div", {}, make("p", { kind: "soft", text: say("chars_gates") }), make("div", { kind: "gates" }, ...drawn)) : null;
}
