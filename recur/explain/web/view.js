/* One picture with its sentences. The offline page and the service both show it with this. */
import { bar, clamp, make, paintLight, shape } from "./draw.js";
import { drawNetwork, drawUnits } from "./inside.js";
import { END, percent, say } from "./texts.js";
import { drawTree } from "./tree.js";

let made = 0;

/* Whether a word names what the detector found: equal, or its plural. */
const names = (word, label) => {
  const [a, b] = [word.toLowerCase(), label.toLowerCase()];
  return b.split(/[\s_/-]+/).includes(a) || a === b || a === `${b}s` || a === `${b}es`;
};

/* The place of a box in words: the third of the picture in which its middle lies, or the whole when it is large. */
function placeOf(region, picture) {
  if (!region) return say("whole");
  const [x0, y0, x1, y1] = region, { width, height } = picture;
  if ((x1 - x0) * (y1 - y0) > 0.6 * width * height) return say("whole");
  const third = (low, high, whole) => Math.min(2, Math.floor((3 * (low + high)) / 2 / whole));
  return say("places")[3 * third(y0, y1, height) + third(x0, x1, width)];
}

/* The words of a sentence in which the word at `place` is another one, from what the explanation holds; null when it holds none. */
function continued(sentence, place, word) {
  const found = sentence.continuations?.find((each) => each.place === place && each.word === word);
  if (!found || place > (sentence.fork ?? Infinity)) return null;
  const original = sentence.words[place] ?? sentence.end, others = [original, ...original.runners_up.filter((each) => each.word !== word)];
  const probability = original.runners_up.find((each) => each.word === word)?.probability ?? 0;
  const chosen = { ...original, word, probability, runners_up: others.map(({ word: other, probability: p }) => ({ word: other, probability: p })).sort((a, b) => b.probability - a.probability) };
  const words = word === END ? sentence.words.slice(0, place) : [...sentence.words.slice(0, place), chosen, ...found.words];
  return { ...sentence, words, caption: found.caption, log_prob: found.log_prob, fork: place, confidence: null, mine: true, tree: undefined, states: undefined, end: word === END ? chosen : null };
}

/* Fills `article` with the explanation `data`. `options`: `source`, the address of the picture, where the article has no
   picture yet; `goOn(language, words)`, which promises the sentence that begins with these words. */
export function mount(article, data, options = {}) {
  const id = `view-${++made}`, first = data.sentences.find((each) => each.caption !== null);
  let figure = article.querySelector("figure");
  if (!figure) {
    const { width, height } = data.picture;
    const size = Math.min(1, 640 / Math.max(width, height)), wide = Math.max(1, Math.round(width * size)), high = Math.max(1, Math.round(height * size));
    figure = make("figure", {}, make("div", { kind: "frame" }, make("img", { src: options.source, width: wide, height: high })), make("figcaption"));
    article.append(figure);
  }
  const frame = figure.querySelector(".frame"), image = frame.querySelector("img");
  image.alt = first ? say("picture_of", { caption: first.caption }) : say("not_sure");
  const canvas = make("canvas", { width: image.getAttribute("width"), height: image.getAttribute("height"), "aria-hidden": "true", kind: "light" });
  const region = make("div", { kind: "region", "aria-hidden": "true", hidden: true });
  const seen = make("p", { kind: "objects" });
  let boxes = [];
  frame.querySelectorAll("canvas, .region, .object").forEach((old) => old.remove());
  frame.append(canvas, region);
  article.querySelectorAll(".reading, .deep").forEach((old) => old.remove());
  const reading = make("div", { kind: "reading" }), deep = make("section", { kind: "deep" });
  article.append(reading, deep);

  function put(box, [x0, y0, x1, y1]) {
    const { width, height } = data.picture, share = (value, whole) => `${clamp((100 * value) / whole, 0, 100)}%`;
    box.style.left = share(x0, width); box.style.top = share(y0, height);
    box.style.width = share(x1 - x0, width); box.style.height = share(y1 - y0, height);
  }

  function drawObjects() {
    for (const box of boxes) box.remove();
    boxes = data.objects.map((object) => {
      const box = make("div", { kind: "object", "aria-hidden": "true", hidden: true }, make("span", { text: `${object.label} ${percent(object.score)}` }));
      put(box, object.box);
      return box;
    });
    frame.append(...boxes);
    seen.hidden = !boxes.length;
    seen.replaceChildren(`${say("objects")}: `, ...data.objects.map((object, number) =>
      make("button", { type: "button", kind: "chip", text: `${object.label} ${percent(object.score)}`, onclick: () => { boxes[number].hidden = !boxes[number].hidden; } })));
  }

  const own = data.sentences, shown = [...own];
  const panel = make("section", { kind: "panel", id: `${id}-panel`, "aria-live": "polite" });
  const places = own.map(() => make("section", { kind: "caption" }));
  let buttons = [], pinned = null, now = null, opened = null, active = Math.max(0, own.indexOf(first));

  const same = (a, b) => (a && b ? a[0] === b[0] && a[1] === b[1] : a === b);
  function look(spot) {
    if (same(spot, now) && spot) return;
    now = spot;
    for (const button of buttons) button.element.setAttribute("aria-pressed", String(same(button.spot, spot)));
    const sentence = spot && shown[spot[0]], word = spot && (sentence.words[spot[1]] ?? sentence.end);
    canvas.classList.toggle("shown", Boolean(word?.attention));
    region.hidden = !word?.region;
    boxes.forEach((box, number) => { box.hidden = !(word && names(word.word, data.objects[number].label)); });
    panel.replaceChildren();
    if (!word) return;
    if (word.attention) paintLight(canvas, word.attention);
    if (word.region) put(region, word.region);
    tell(sentence, spot, word);
  }

  function tell(sentence, [number, place], word) {
    const line = make("p", {}, make("b", { text: word.word === END ? say("end") : word.word, lang: sentence.language }), word.region ? ` · ${say("looked")}: ${placeOf(word.region, data.picture)}` : "");
    const list = make("ul", { lang: sentence.language });
    const row = (kind, label, p, action) => {
      const cells = [label, bar(p), make("span", { text: percent(p) })];
      list.append(make("li", { kind }, action ? make("button", { type: "button", kind: "runner", onclick: action, "aria-label": `${say("goes_on", { word: label.textContent })}, ${percent(p)}` }, ...cells) : make("div", { kind: "runner" }, ...cells)));
    };
    const named = (text) => make("span", { text: text === END ? say("end") : text });
    row("said", named(word.word), word.probability);
    for (const other of word.runners_up) {
      const ready = takenBack(number, place, other.word) ?? continued(sentence, place, other.word);
      const action = ready || options.goOn ? () => choose(number, place, other.word) : null;
      row("other", named(other.word), other.probability, action);
    }
    panel.append(line, list);
  }

  /* The model's own sentence, where choosing `word` only takes back the one choice that was made. */
  const takenBack = (number, place, word) => (shown[number].mine && shown[number].fork === place && (own[number].words[place] ?? own[number].end)?.word === word ? own[number] : null);

  async function choose(number, place, word) {
    const sentence = shown[number], back = takenBack(number, place, word), ready = back ?? (options.goOn ? null : continued(sentence, place, word));
    let next = ready;
    if (!next) {
      panel.setAttribute("aria-busy", "true");
      try {
        next = await options.goOn(sentence.language, [...sentence.words.slice(0, place).map((each) => each.word), word]);
        next = { ...next, mine: true, fork: place };
      } catch (error) {
        panel.append(make("p", { kind: "problem", role: "alert", text: say("failed", { why: error.message }) }));
        return;
      } finally { panel.removeAttribute("aria-busy"); }
    }
    shown[number] = next;
    active = number;
    const at = Math.min(place, next.words.length - 1);
    draw(at >= 0 ? [number, at] : null);
    buttons.find((button) => same(button.spot, [number, at]))?.element.focus({ preventScroll: true });
  }

  function drawSentence(number) {
    const sentence = shown[number], place = places[number];
    const facts = make("p", { kind: "facts" }, make("span", { kind: "language", text: sentence.language }));
    if (sentence.mine) {
      facts.append(make("span", { text: say("yours") }), make("button", { type: "button", kind: "link back", text: say("back"), onclick: () => { shown[number] = own[number]; active = number; draw(null); places[number].querySelector(".word")?.focus(); } }));
    } else if (sentence.confidence !== null && sentence.confidence !== undefined) {
      const p = Math.round(100 * sentence.confidence);
      const gauge = shape("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", class: "gauge", "aria-hidden": "true" });
      gauge.append(shape("rect", { class: "track", width: 100, height: 4 }), shape("rect", { class: "fill", width: p, height: 4 }));
      facts.append(make("span", {}, `${say("confidence")} `, make("b", { text: `${p} %` })), gauge);
    }
    place.replaceChildren(facts);
    if (sentence.caption === null) { place.append(make("p", { kind: "sentence unsure", text: say("not_sure") })); return; }
    const tight = sentence.caption.length <= sentence.words.reduce((sum, word) => sum + word.word.length, 0);
    const line = make("p", { kind: `sentence${tight ? " tight" : ""}`, lang: sentence.language });
    const all = [...sentence.words, ...(sentence.end ? [sentence.end] : [])];
    all.forEach((word, at) => {
      const ends = at === sentence.words.length;
      const level = Math.min(4, Math.floor(word.probability * 5)), spot = [number, at];
      const element = make("button", { type: "button", kind: `word p${level}${ends ? " ends" : ""}`, "aria-pressed": "false", "aria-controls": panel.id, text: ends ? "■" : word.word, ...(ends ? { "aria-label": say("end") } : {}) });
      element.addEventListener("mouseenter", () => look(spot));
      element.addEventListener("mouseleave", () => look(pinned));
      element.addEventListener("focus", () => { if (element.matches(":focus-visible")) { pinned = spot; look(spot); } });
      element.addEventListener("click", () => { pinned = spot; if (active !== number) { active = number; drawDeep(); } look(spot); });
      element.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!move) return;
        event.preventDefault();
        const at = buttons.findIndex((button) => button.element === element);
        buttons[clamp(at + move, 0, buttons.length - 1)].element.focus();
      });
      if (at && !tight) line.append(" ");
      line.append(element);
      buttons.push({ element, spot });
    });
    place.append(line);
  }

  function draw(spot) {
    buttons = [];
    now = null;
    own.forEach((_, number) => drawSentence(number));
    pinned = spot ?? clearest();
    look(pinned);
    drawDeep();
  }

  /* The word of the active sentence that looked at one place most clearly. */
  function clearest() {
    let best = null, peak = -1;
    shown[active]?.words.forEach((word, place) => {
      const high = word.attention ? Math.max(...word.attention.flat()) : 0;
      if (high > peak) { peak = high; best = [active, place]; }
    });
    return best;
  }

  function others() {
    const lists = own.filter((sentence) => sentence.caption !== null && sentence.n_best.length > 1).map((sentence) =>
      make("ol", { start: 2, lang: sentence.language }, ...sentence.n_best.filter(([text]) => text !== sentence.caption).map(([text, score]) => make("li", {}, `${text} `, make("small", { text: score.toFixed(2) })))));
    return lists.length ? make("details", { kind: "others" }, make("summary", { text: say("others") }), ...lists, make("p", { kind: "soft", text: say("log_prob") })) : null;
  }

  /* The inside of the network, for the active sentence; each part is drawn when it is opened. */
  function drawDeep() {
    const sentence = shown[active];
    const parts = sentence && sentence.caption !== null ? [
      ["search", sentence.tree?.length ? () => drawTree(sentence) : null],
      ["network", sentence.states ? () => drawNetwork(sentence, (place) => look([active, place])) : null],
      ["units", sentence.states ? () => drawUnits(sentence) : null],
    ].filter(([, part]) => part) : [];
    deep.hidden = !parts.length;
    if (!parts.length) { deep.replaceChildren(); return; }
    if (!parts.some(([name]) => name === opened)) opened = parts[0][0];
    const body = make("div", { kind: "deepbody", role: "tabpanel", tabindex: "0", id: `${id}-deep`, "aria-labelledby": `${id}-${opened}` });
    const tabs = parts.map(([name]) => make("button", { type: "button", role: "tab", id: `${id}-${name}`, "aria-controls": `${id}-deep`, "aria-selected": String(name === opened), tabindex: name === opened ? "0" : "-1", text: say(name), onclick: () => select(name) }));
    const bar = make("div", { role: "tablist", "aria-label": say("detail"), kind: "tabs" }, ...tabs);
    const select = (name, focus = true) => { opened = name; drawDeep(); if (focus) deep.querySelector(`#${id}-${name}`).focus(); };
    bar.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key], at = parts.findIndex(([name]) => name === opened);
      if (move) { event.preventDefault(); select(parts[clamp(at + move, 0, parts.length - 1)][0]); }
    });
    body.append(parts.find(([name]) => name === opened)[1]());
    deep.replaceChildren(make("h2", {}, `${say("detail")} `, make("span", { lang: sentence.language, text: sentence.caption })), bar, body);
  }

  article.addEventListener("keydown", (event) => { if (event.key === "Escape") { pinned = null; look(null); } });
  const extra = others();
  reading.append(...places, panel, seen, ...(extra ? [extra] : []));
  drawObjects();
  draw(null);
  /* More may come later: the same explanation with its detail. Choices and the focus stay where they are. */
  return {
    found(objects) {
      data.objects = objects;
      drawObjects();
      const spot = now;
      now = null;
      look(spot);
    },
    enrich(fuller) {
      fuller.sentences.forEach((sentence, number) => {
        const mine = shown[number] !== own[number];
        own[number] = sentence;
        if (!mine) shown[number] = sentence;
      });
      const held = buttons.find((button) => button.element === document.activeElement)?.spot;
      draw(pinned);
      if (held) buttons.find((button) => same(button.spot, held))?.element.focus({ preventScroll: true });
    },
  };
}
