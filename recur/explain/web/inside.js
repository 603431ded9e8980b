/* The network from START to END with its real values, and every unit and gate over the steps. */
import { make, paintCells, shape, unpack } from "./draw.js";
import { END, percent, say } from "./texts.js";

/* What each step reads and says: START, the language token, the words. */
export function stepsOf(sentence) {
  const said = [...sentence.words, sentence.end];
  return ["START", `<${sentence.language}>`, ...sentence.words.map((word) => word.word)].map((reads, number) => ({
    reads, says: number ? said[number - 1] : null,
  }));
}

const spoken = (word) => (word === END ? `■ ${say("end")}` : word);

/* Units in a block as square as it gets. */
const columnsOf = (units) => {
  let columns = Math.ceil(Math.sqrt(units));
  while (units % columns && columns < units) columns++;
  return columns;
};

export function drawNetwork(sentence, focusWord) {
  const [layers, count, units] = sentence.states.shape, hidden = unpack(sentence.states.hidden);
  const steps = stepsOf(sentence), columns = columnsOf(units), told = make("p", { kind: "told", "aria-live": "polite", text: " " });
  const row = make("ol", { kind: "steps" });
  steps.forEach((step, number) => {
    const item = make("li", {});
    const says = make("div", { kind: "says" });
    if (step.says) {
      says.append(make("span", { kind: "soft", text: say("says") }));
      const first = [{ word: step.says.word, probability: step.says.probability }, ...step.says.runners_up.slice(0, 2)];
      first.forEach(({ word, probability }, rank) => says.append(make("div", { kind: rank ? "other" : "first", lang: sentence.language, title: `${spoken(word)} ${percent(probability)}` },
        make("span", { text: spoken(word) }), make("span", { text: percent(probability) }))));
    } else says.append(make("span", { kind: "soft", text: say("nothing") }));
    item.append(says);
    if (step.says?.attention) {
      const small = make("canvas", { kind: "look", "aria-hidden": "true" }), grid = step.says.attention, top = Math.max(...grid.flat());
      paintCells(small, grid.length, grid[0].length, (a, b) => grid[a][b] / top);
      item.append(make("div", { kind: "cellname", text: say("attention") }), small);
    }
    for (let layer = layers - 1; layer >= 0; layer--) {
      const canvas = make("canvas", { kind: "block", "aria-hidden": "true" });
      const value = (unit) => hidden((layer * count + number) * units + unit);
      paintCells(canvas, units / columns, columns, (a, b) => value(a * columns + b));
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        const unit = Math.floor(((event.clientY - box.top) / box.height) * (units / columns)) * columns + Math.floor(((event.clientX - box.left) / box.width) * columns);
        if (unit >= 0 && unit < units) told.textContent = say("unit_value", { layer: layer + 1, unit: unit + 1, step: step.reads, value: value(unit).toFixed(2) });
      });
      item.append(make("div", { kind: "cellname", text: say("layer", { n: layer + 1 }) }), canvas);
    }
    item.append(make("div", { kind: "reads" }, make("span", { kind: "soft", text: say("reads") }), make("b", { text: number ? step.reads : `START · ${say("start")}`, lang: number > 1 ? sentence.language : "en" })));
    if (step.says && step.says.word !== END) item.addEventListener("pointerenter", () => focusWord(number - 1));
    row.append(item);
  });
  return make("div", {}, make("p", { kind: "soft", text: say("network_hint") }), make("div", { kind: "scroll", tabindex: "0", role: "region", "aria-label": say("network") }, row), told);
}

export function drawUnits(sentence) {
  const states = sentence.states, [layers, count, units] = states.shape, steps = stepsOf(sentence);
  const kinds = { hidden: states.hidden, ...(states.cells ? { cells: states.cells } : {}) };
  for (const [gate, values] of Object.entries(states.gates)) kinds[`gate_${gate}`] = values;
  const choose = make("select", { "aria-label": say("show") });
  for (let layer = layers; layer >= 1; layer--) {
    for (const kind of Object.keys(kinds)) choose.append(make("option", { value: `${layer - 1} ${kind}`, text: `${say("layer", { n: layer })} · ${say(kind)}` }));
  }
  const canvas = make("canvas", { kind: "units", "aria-hidden": "true" }), told = make("p", { kind: "told", "aria-live": "polite" });
  const slider = make("input", { type: "range", min: 1, max: units, value: 1, "aria-label": say("unit") });
  const curve = shape("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", class: "curve", "aria-hidden": "true" });
  const mark = make("div", { kind: "unitmark", "aria-hidden": "true" });
  let value = () => 0, layer = 0, loudest = 1;

  const trace = (unit, step = -1) => {
    const points = steps.map((_, number) => `${(100 * (number + 0.5)) / steps.length},${20 - (18 * value(unit, number)) / loudest}`);
    curve.replaceChildren(shape("line", { x1: 0, x2: 100, y1: 20, y2: 20, class: "zero" }), shape("polyline", { points: points.join(" "), class: "line" }));
    const all = steps.map((each, number) => `${each.reads} ${value(unit, number).toFixed(2)}`);
    told.textContent = step >= 0
      ? say("unit_value", { layer: layer + 1, unit: unit + 1, step: steps[step].reads, value: value(unit, step).toFixed(2) })
      : `${say("layer", { n: layer + 1 })}, ${say("unit")} ${unit + 1}: ${all.join(" · ")}`;
    mark.style.top = `${(100 * (unit + 0.5)) / units}%`;
    slider.value = unit + 1;
  };
  const paint = () => {
    const [number, kind] = choose.value.split(" "), numbers = unpack(kinds[kind]);
    layer = Number(number);
    value = (unit, step) => numbers((layer * count + step) * units + unit);
    loudest = kind === "cells" ? Math.max(1, kinds.cells.scale * 127) : 1;
    paintCells(canvas, units, steps.length, (unit, step) => value(unit, step) / loudest);
    trace(Number(slider.value) - 1);
  };
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const unit = Math.floor(((event.clientY - box.top) / box.height) * units), step = Math.floor(((event.clientX - box.left) / box.width) * steps.length);
    if (unit >= 0 && unit < units && step >= 0 && step < steps.length) trace(unit, step);
  });
  choose.addEventListener("change", paint);
  slider.addEventListener("input", () => trace(Number(slider.value) - 1));
  paint();
  const names = make("div", { kind: "stepnames", "aria-hidden": "true" }, ...steps.map((step) => make("span", { text: step.reads })));
  const body = make("div", { kind: "unitsbody" },
    make("div", { kind: "controls" }, make("label", {}, `${say("show")} `, choose), make("label", {}, `${say("unit")} `, slider)),
    make("div", { kind: "unitsgrid" }, make("div", { kind: "unitsframe" }, canvas, mark), names, curve), told);
  const table = make("table", { kind: "saturated" }, make("caption", { text: say("saturated") }), make("thead", {}, make("tr", {}, ...[say("gate"), say("shut"), say("open")].map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...states.saturated.map((each) => make("tr", {}, make("th", { scope: "row", text: `${say("layer", { n: each.layer })} · ${say(`gate_${each.gate}`)}` }), make("td", { text: percent(each.shut) }), make("td", { text: percent(each.open) })))));
  return make("div", {}, make("p", { kind: "soft", text: say("units_hint") }), body, states.saturated.length ? table : null);
}
