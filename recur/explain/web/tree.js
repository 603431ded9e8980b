/* The beam as a tree: what was kept at every step, what was dropped, and why. */
import { clamp, make, shape } from "./draw.js";
import { END, percent, say } from "./texts.js";

const WIDE = 104, HIGH = 30, LEFT = 8;

/* Which row each branch is drawn in: at every step the branches in the order of their parents, the kept ones first. */
function layout(tree) {
  const steps = [], depth = [], row = [];
  tree.forEach((branch, number) => {
    depth[number] = branch.parent < 0 ? 0 : depth[branch.parent] + 1;
    (steps[depth[number]] ||= []).push(number);
  });
  for (const step of steps) {
    const dropped = (number) => (tree[number].fate === "beaten" ? 1 : 0);
    const above = (number) => (tree[number].parent < 0 ? 0 : row[tree[number].parent]);
    step.sort((a, b) => dropped(a) - dropped(b) || above(a) - above(b) || tree[b].log_prob - tree[a].log_prob);
    step.forEach((number, place) => { row[number] = place; });
  }
  return { steps, depth, row };
}

export function drawTree(sentence) {
  const tree = sentence.tree, { steps, depth, row } = layout(tree);
  const x = (number) => LEFT + depth[number] * WIDE, y = (number) => 10 + row[number] * HIGH;
  const name = (number) => (tree[number].word === END ? `■ ${say("end_short")}` : tree[number].word);
  const width = LEFT + steps.length * WIDE + 20, height = 14 + HIGH * Math.max(...steps.map((step) => step.length));

  const why = (number) => {
    const branch = tree[number], words = [];
    for (let at = number; at >= 0; at = tree[at].parent) if (tree[at].word !== END) words.unshift(tree[at].word);
    const kept = steps[depth[number]].filter((each) => tree[each].fate !== "beaten").map((each) => tree[each].log_prob);
    const key = branch.fate === "ended" && branch.chosen ? "fate_won" : branch.fate === "beaten" && !kept.length ? "fate_beaten_alone" : `fate_${branch.fate}`;
    const score = branch.fate === "ended" ? branch.score.toFixed(2) : branch.log_prob.toFixed(2);
    return { words, text: say(key, { k: sentence.beam, score, bar: kept.length ? Math.min(...kept).toFixed(2) : "" }), p: branch.probability };
  };

  const svg = shape("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: "0", class: "tree", "aria-label": say("search_hint", { k: sentence.beam }) });
  const links = shape("g"), nodes = shape("g");
  svg.append(links, nodes);
  const boxes = tree.map((branch, number) => {
    const kind = `${branch.fate}${branch.chosen ? " chosen" : ""}`;
    if (branch.parent >= 0) {
      const from = x(branch.parent) + WIDE - 16, a = y(branch.parent) + 12, to = x(number), b = y(number) + 12, middle = (from + to) / 2;
      links.append(shape("path", { d: `M${from} ${a}C${middle} ${a} ${middle} ${b} ${to} ${b}`, class: `link ${kind}` }));
    }
    const group = shape("g", { class: `node ${kind}`, transform: `translate(${x(number)} ${y(number)})` });
    const text = name(number), shown = text.length > 8 ? `${text.slice(0, 7)}…` : text;
    group.append(
      shape("rect", { width: WIDE - 16, height: 24, rx: 7 }),
      shape("text", { x: 8, y: 16.5, class: "said" }, shown),
      shape("text", { x: WIDE - 22, y: 16.5, class: "chance", "text-anchor": "end" }, Math.round(100 * branch.probability)),
    );
    nodes.append(group);
    return group;
  });

  const told = make("p", { kind: "told", "aria-live": "polite" });
  let now = -1;
  const show = (number) => {
    if (now >= 0) boxes[now].classList.remove("now");
    now = number;
    boxes[now].classList.add("now");
    const { words, text, p } = why(number);
    told.replaceChildren(make("b", { text: `${words.join(" ")} `, lang: sentence.language }), `(${percent(p)}) — ${text}`);
  };
  boxes.forEach((box, number) => {
    box.addEventListener("pointerenter", () => show(number));
    box.addEventListener("click", () => show(number));
  });
  svg.addEventListener("keydown", (event) => {
    const step = steps[depth[now]], place = step.indexOf(now);
    const near = (other) => other && other[clamp(place, 0, other.length - 1)];
    const child = tree.findIndex((branch) => branch.parent === now && branch.fate !== "beaten");
    const next = {
      ArrowUp: step[place - 1], ArrowDown: step[place + 1],
      ArrowLeft: tree[now].parent >= 0 ? tree[now].parent : undefined,
      ArrowRight: child >= 0 ? child : near(steps[depth[now] + 1]),
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    show(next);
    boxes[next].scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  show(Math.max(0, tree.findLastIndex((branch) => branch.chosen)));
  return make("div", {}, make("p", { kind: "soft", text: say("search_hint", { k: sentence.beam }) }), make("div", { kind: "scroll" }, svg), told);
}
