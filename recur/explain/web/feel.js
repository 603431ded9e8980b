/* A judgement of a text: what each word had to do with it, and how it changed from word to word. */
import { make, shape } from "./draw.js";
import { TEXTS, percent, say } from "./texts.js";

Object.assign(TEXTS.en, { feel_pos: "good", feel_neg: "bad", feel_running: "How good it sounds after each word", feel_key: "Orange: speaks for good. Blue: speaks for bad. Point at a word to see by how much it moves the log-odds.", feel_long: "The text is too long to weigh its words one by one." });
Object.assign(TEXTS.zh, { feel_pos: "好评", feel_neg: "差评", feel_running: "读到每个词之后好评的概率", feel_key: "橙色：偏向好评；蓝色：偏向差评。指向一个词，可看到它使对数几率改变多少。", feel_long: "文字太长，未逐词分析。" });

const TURNS = 5;  // words that are written under the curve

export function drawFeeling(told) {
  const most = Math.max(0.5, ...told.words.map(([, weight]) => Math.abs(weight)));
  const words = make("p", { kind: "weighed", lang: told.language });
  told.words.forEach(([word, weight], place) => {
    const level = Math.round((4 * Math.abs(weight)) / most);
    if (place && told.language !== "zh") words.append(" ");
    words.append(make("span", { kind: level ? `${weight > 0 ? "for" : "against"}${level}` : "", title: weight.toFixed(2), text: word }));
  });
  if (!told.words.length) words.append(say("feel_long"));
  const key = told.words.length ? make("p", { kind: "soft", text: say("feel_key") }) : null;
  const body = make("div", { kind: "card" }, make("p", {}, make("b", { kind: "verdict", text: say(`feel_${told.label}`) ?? told.label }), ` ${percent(told.probability)}`), words, key);
  const running = told.running ?? [];
  if (running.length > 1) {
    const points = running.map(([, p], place) => `${(100 * place) / (running.length - 1)},${38 - 36 * p}`).join(" ");
    const curve = shape("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", class: "curve", role: "img", "aria-label": `${say("feel_running")}: ${running.map(([word, p]) => `${word} ${percent(p)}`).join(", ")}` });
    curve.append(shape("line", { x1: 0, x2: 100, y1: 20, y2: 20, class: "zero" }), shape("polyline", { points, class: "line" }));
    // The words after which it changed most, under their places; a word that would stand on another is left out.
    const names = make("div", { kind: "turns", "aria-hidden": "true" }), taken = [];
    const steps = running.map(([word, p], place) => [word, place, place ? p - running[place - 1][1] : 0]).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
    for (const [word, place, step] of steps.slice(0, 12)) {
      const at = place / (running.length - 1);
      if (taken.length === TURNS || Math.abs(step) < 0.05 || taken.some((other) => Math.abs(other - at) < 0.16)) continue;
      taken.push(at);
      const name = make("span", { text: `${word} ${step > 0 ? "↗" : "↘"}` });
      name.style.left = `${100 * at}%`;
      name.style.transform = `translateX(${-100 * at}%)`;
      names.append(name);
    }
    const scale = make("div", { kind: "poles", "aria-hidden": "true" }, make("span", { text: say("feel_pos") }), make("span", { text: say("feel_neg") }));
    body.append(make("p", { kind: "soft", text: say("feel_running") }), make("div", { kind: "running" }, scale, make("div", {}, curve, names)));
  }
  return body;
}
