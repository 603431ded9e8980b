/* A video: the probabilities of its labels over time, what was seen at a moment, and the frames that changed the label. */
import { bar, clamp, make, shape } from "./draw.js";
import { TEXTS, percent, say } from "./texts.js";

Object.assign(TEXTS.en, {
  film_time: "Labels over time", film_hint: "Each colour is a label; the higher its band, the more probable. Below is the label that was chosen, faint where the model is not sure. Tap the timeline, or move the slider.",
  film_moment: "Moment", film_frame: "frame {n}", film_sure: "{label}", film_unsure: "not sure: {label}, or {other}", film_hardly: "not sure: nothing has half of the probability; {label} is ahead",
  film_changes: "What changed its mind", film_why: "The frames that the new label rests on most: were one of them hidden, the label would have the probability below it.", film_none: "The label never changes.",
  film_left: "{n} more changes are not explained.", film_change: "{from} → {to}", film_alone: "{p} sure", film_without: "without it\n{p}", film_shared: "No single frame: the others make up for any one of them.", film_doubt: "Not sure of {p} of the frames.", film_certain: "Sure of every frame.",
});
Object.assign(TEXTS.zh, {
  film_time: "各时刻的标签", film_hint: "每种颜色是一个标签，色带越高，概率越大。下方是选定的标签，不确定之处颜色较淡。点按时间轴，或移动滑块。",
  film_moment: "时刻", film_frame: "第 {n} 帧", film_sure: "{label}", film_unsure: "不确定：{label}，或 {other}", film_hardly: "不确定：没有标签达到一半概率；{label} 领先",
  film_changes: "是什么改变了判断", film_why: "新标签最依据的几帧：若遮住其中一帧，新标签的概率即为图下的数值。", film_none: "标签从未改变。",
  film_left: "另有 {n} 次变化未作解释。", film_change: "{from} → {to}", film_alone: "把握 {p}", film_without: "遮住后\n{p}", film_shared: "不取决于单独一帧：遮住任何一帧，其他帧都能弥补。", film_doubt: "有 {p} 的帧不确定。", film_certain: "每一帧都确定。",
});

const SURE = 0.6; /* a label of less is told as not sure */
const COLUMNS = 400; /* points of a curve at most */
const STILLS = 24; /* small pictures in a row */
/* Colours that people with any kind of colour vision can tell apart (Okabe and Ito, 2008); with more labels than these, hues. */
const INKS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a600", "#8a8a8a"];
const inkOf = (told, number) => (told.classes.length <= INKS.length ? INKS[number] : `hsl(${Math.round((360 * number) / told.classes.length)} 55% 52%)`);

const unsure = (told, at) => told.probabilities[at][told.labels[at]] < SURE;
const clock = (seconds) => (seconds < 60 ? `${seconds.toFixed(2)} s` : `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`);
const moment = (told, at) => (told.seconds[at] === null ? say("film_frame", { n: told.frames[at] }) : `${clock(told.seconds[at])} · ${say("film_frame", { n: told.frames[at] })}`);

function verdict(told, at) {
  const row = told.probabilities[at], label = told.classes[told.labels[at]];
  if (!unsure(told, at)) return say("film_sure", { label });
  const order = row.map((p, n) => [p, n]).filter(([, n]) => n !== told.labels[at]).sort((a, b) => b[0] - a[0]);
  return Math.max(...row) < 0.5 || !order.length ? say("film_hardly", { label }) : say("film_unsure", { label, other: told.classes[order[0][1]] });
}

function timeline(told) {
  const steps = told.labels.length, count = Math.min(steps, COLUMNS), svg = shape("svg", { viewBox: `0 0 ${steps} 124`, preserveAspectRatio: "none", class: "timeline", role: "img", "aria-label": `${say("film_time")}: ${told.classes.join(", ")}` });
  const places = [...new Set(Array.from({ length: count }, (_, n) => Math.round((n * (steps - 1)) / Math.max(1, count - 1))))];
  const low = places.map(() => 0);
  told.classes.forEach((_, number) => {
    const upper = [], lower = [];
    places.forEach((at, n) => {
      lower.unshift(`${n ? (n === places.length - 1 ? steps : at + 0.5) : 0},${(100 * (1 - low[n])).toFixed(1)}`);
      low[n] = Math.min(1, low[n] + told.probabilities[at][number]);
      upper.push(`${n ? (n === places.length - 1 ? steps : at + 0.5) : 0},${(100 * (1 - low[n])).toFixed(1)}`);
    });
    svg.append(shape("polygon", { fill: inkOf(told, number), points: [...upper, ...lower].join(" ") }));
  });
  let first = 0;
  for (let at = 1; at <= steps; at++) {
    if (at < steps && told.labels[at] === told.labels[first] && unsure(told, at) === unsure(told, first)) continue;
    svg.append(shape("rect", { x: first, y: 106, width: at - first, height: 18, fill: inkOf(told, told.labels[first]), class: unsure(told, first) ? "unsure" : "sure" }));
    first = at;
  }
  return svg;
}

/* `clip`: a video element that shows the moment, where the browser can play what was read. */
export function drawFilm(told, clip) {
  const steps = told.labels.length, body = make("div", { kind: "card filmcard" });
  if (!steps) return body;
  const shown = Object.keys(told.thumbs ?? {}).map(Number), svg = timeline(told), frame = make("div", { kind: "timeframe" }, svg);
  const line = make("div", { kind: "cursor", "aria-hidden": "true" });
  frame.append(line);
  const slider = make("input", { type: "range", min: 0, max: steps - 1, step: 1, value: 0, "aria-label": say("film_moment") });
  const when = make("p", { kind: "when" }), what = make("p", { kind: "verdict" });
  const picture = clip ?? (shown.length ? make("img", { alt: "" }) : null);
  const nearest = (at) => shown.reduce((best, each) => (Math.abs(each - at) < Math.abs(best - at) ? each : best), shown[0]);
  const rows = told.classes.map((name, number) => {
    const ink = bar(0), share = make("span");
    ink.querySelector(".fill").style.fill = inkOf(told, number);
    return { number, ink, share, row: make("li", { kind: "runner" }, make("span", { text: name }), ink, share) };
  });
  const list = make("ul", { kind: "odds" });
  const spread = new Set(Array.from({ length: STILLS }, (_, n) => nearest((n * (steps - 1)) / (STILLS - 1))));
  const strip = make("div", { kind: "strip" }, ...(shown.length ? [...spread].map((at) => button(at)) : []));
  const go = (at) => { slider.value = at; show(); };
  function button(at, under) {
    const image = make("img", { src: told.thumbs[at], alt: under ? "" : `${moment(told, at)}: ${told.classes[told.labels[at]]}`, width: 64, height: 64 });
    return make("button", { type: "button", "data-at": at, title: moment(told, at), onclick: () => go(at) }, image, under ? make("span", { text: under }) : null);
  }
  function show() {
    const at = Number(slider.value), text = moment(told, at);
    when.textContent = text;
    what.textContent = verdict(told, at);
    what.classList.toggle("doubt", unsure(told, at));
    slider.setAttribute("aria-valuetext", `${text}: ${what.textContent}`);
    line.style.left = `${(100 * (at + 0.5)) / steps}%`;
    rows.sort((a, b) => told.probabilities[at][b.number] - told.probabilities[at][a.number] || a.number - b.number);
    for (const { number, ink, share } of rows) {
      ink.querySelector(".fill").setAttribute("width", Math.max(0.6, 100 * told.probabilities[at][number]));
      share.textContent = percent(told.probabilities[at][number]);
    }
    list.replaceChildren(...rows.slice(0, 5).map(({ row }) => row));
    if (clip) { if (told.seconds[at] !== null) clip.currentTime = told.seconds[at]; }
    else if (picture) picture.src = told.thumbs[nearest(at)];
    for (const each of body.querySelectorAll("button[data-at]")) each.classList.toggle("now", Number(each.dataset.at) === at);
  }
  slider.addEventListener("input", show);
  const point = (event) => {
    const box = svg.getBoundingClientRect();
    go(clamp(Math.floor(((event.clientX - box.left) / box.width) * steps), 0, steps - 1));
  };
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); point(event); });
  svg.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
  const doubts = told.labels.filter((_, at) => unsure(told, at)).length;
  const keys = make("ul", { kind: "keys" }, ...told.classes.map((name, number) => {
    const dot = make("i", { "aria-hidden": "true" });
    dot.style.background = inkOf(told, number);
    return make("li", {}, dot, name);
  }));
  body.append(
    make("p", { kind: "soft", text: `${say("film_hint")} ${doubts ? say("film_doubt", { p: percent(doubts / steps) }) : say("film_certain")}` }), keys, frame, slider,
    make("div", { kind: "moment" }, picture ? make("div", { kind: "still" }, picture) : null, make("div", { "aria-live": "polite" }, when, what, list)), strip,
    make("h2", { text: say("film_changes") }),
  );
  if (!told.changes.length) body.append(make("p", { text: say("film_none") }));
  else body.append(make("p", { kind: "soft", text: say("film_why") }), make("ol", { kind: "changes" }, ...told.changes.map((change) => make("li", {},
    make("div", {}, make("button", { type: "button", kind: "link", text: moment(told, change.at), onclick: () => go(change.at) }),
      make("p", {}, make("b", { text: say("film_change", { from: change.from, to: change.to }) }), " ", make("span", { kind: "share", text: say("film_alone", { p: percent(change.probability) }) }))),
    change.named.every((each) => change.probability - each.without < 0.02) ? make("p", { kind: "share", text: say("film_shared") }) : make("div", { kind: "strip" }, ...change.named.map((each) => {
      const under = say("film_without", { p: percent(each.without) });
      return told.thumbs?.[each.at] ? button(each.at, under) : make("button", { type: "button", kind: "chip", "data-at": each.at, text: `${moment(told, each.at)}: ${under.replace("\n", " ")}`, onclick: () => go(each.at) });
    }))))));
  if (told.changes_left_out) body.append(make("p", { kind: "note", text: say("film_left", { n: told.changes_left_out }) }));
  show();
  return body;
}
