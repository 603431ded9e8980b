/* A translation: pointing at a word shows the word that it was read from; the matrix shows the shares of all of them. */
import { make, tint } from "./draw.js";
import { TEXTS, percent, say } from "./texts.js";

Object.assign(TEXTS.en, { tongue_matrix: "Each row is a word of the translation; the stronger its colour, the more of its attention that word of the source got." });
Object.assign(TEXTS.zh, { tongue_matrix: "每行是译文中的一个词；格子颜色越深，该原词得到的注意力越多。" });

export function drawTranslation(told) {
  // All words of the source where the page has them, and else those that a word was read from.
  const parts = told.parts ?? [], shown = parts.length ? parts.flatMap((part) => part.source) : [...new Set(told.alignment.map(([, other]) => other))];
  const words = shown.map((word) => make("span", { text: word }));
  // Of words that come more than once, the one that got the most attention from this word of the translation.
  const strongest = parts.flatMap((part, number) => part.weights.map((row) => parts.slice(0, number).reduce((sum, each) => sum + each.source.length, 0) + row.indexOf(Math.max(...row))));
  const line = make("p", { kind: "sentence", lang: told.to });
  for (const [place, [word, other, weight]] of told.alignment.entries()) {
    const origin = shown[strongest[place]] === other ? strongest[place] : parts.length && place >= strongest.length ? -1 : shown.indexOf(other);
    const light = (on) => () => words[origin]?.classList.toggle("lit", on);
    line.append(make("button", { type: "button", kind: "word", text: word, title: `${other} ${weight.toFixed(2)}`, "aria-label": `${word} ← ${other}`, onmouseenter: light(true), onmouseleave: light(false), onfocus: light(true), onblur: light(false) }), " ");
  }
  const from = make("p", { kind: "origins", lang: told.from });
  for (const element of words) from.append(element, " ");
  const body = make("div", { kind: "card" }, make("p", { kind: "spoken", lang: told.to, text: told.translation }), line, from);
  if (told.parts?.length) body.append(make("p", { kind: "soft", text: say("tongue_matrix") }), ...told.parts.map((part) => matrix(part, told)));
  return body;
}

function matrix(part, told) {
  const head = make("tr", {}, make("td"), ...part.source.map((word) => make("th", { scope: "col", lang: told.from, text: word })));
  const rows = part.words.map((word, place) => make("tr", {}, make("th", { scope: "row", lang: told.to, text: word }), ...part.weights[place].map((share, at) => {
    const cell = make("td", { title: `${word} ← ${part.source[at]}: ${percent(share)}`, "aria-label": percent(share) });
    if (share >= 0.02) cell.style.backgroundColor = tint(share, 1);
    return cell;
  })));
  return make("div", { kind: "scroll", tabindex: 0 }, make("table", { kind: "matrix" }, make("thead", {}, head), make("tbody", {}, ...rows)));
}
