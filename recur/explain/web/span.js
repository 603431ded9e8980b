/* An answer that is a part of a passage: where it stands, what it rests on, and what else it might have been. */
import { bar, clamp, make } from "./draw.js";
import { TEXTS, percent, say } from "./texts.js";

Object.assign(TEXTS.en, {
  span_none: "No answer in this passage", span_sure: "confidence {p}", span_doubt: "not sure · confidence {p}", span_candidates: "What the network weighed", span_nothing: "no answer",
  span_rests: "what the answer rests on", span_starts: "where it may start", span_ends: "where it may end", span_word: "attention to “{word}”", span_show: "Colour by", span_asked: "Words of the question",
  span_asked_hint: "The darker a word, the more the answer loses without it. Choose one to see which words of the passage looked at it.",
  span_why: "Taken out one at a time, these words of the passage cost the answer most: {list}.", span_lone: "No word beside the answer costs it anything when it is taken out.",
  span_hint: "Confidence is how often such an answer is right; the bars below are what the network itself gave each part. Parts that overlap a better one are left out. Choose one to see where it stands.",
});
Object.assign(TEXTS.zh, {
  span_none: "文中没有答案", span_sure: "置信度 {p}", span_doubt: "不确定 · 置信度 {p}", span_candidates: "网络权衡过的答案", span_nothing: "没有答案",
  span_rests: "答案依据什么", span_starts: "可能从哪里开始", span_ends: "可能在哪里结束", span_word: "对“{word}”的注意力", span_show: "着色依据", span_asked: "问题中的词",
  span_asked_hint: "颜色越深，去掉这个词对答案的损失越大。选一个词，可看到文中哪些词注意到了它。",
  span_why: "逐个去掉文中的词，对答案损失最大的是：{list}。", span_lone: "去掉答案旁边的任何一个词都不影响答案。",
  span_hint: "置信度表示这样的答案有多大比例是对的；下面的条形是网络给各处的概率，与更好答案重叠的不列出。选一个，可看到它在文中的位置。",
});

const DOUBT = 0.5; /* an answer of less confidence is told as not sure */
const WHOLE = 8000; /* characters of a passage that are shown together */
const AROUND = 1500; /* characters of a longer one on each side of an answer that no window told of */

export function drawSpan(told) {
  const letters = [...told.passage], tokens = told.tokens ?? []; /* places count code points */
  const text = (start, end) => letters.slice(start, end).join("");
  const wordAt = (at) => text(...tokens[at]);
  const body = make("div", { kind: "card spancard" }), passage = make("p", { kind: "passage" });
  const doubt = told.confidence < DOUBT, sure = make("p", { kind: doubt ? "share doubt" : "share", text: say(doubt ? "span_doubt" : "span_sure", { p: percent(told.confidence) }) });
  const views = { rests: say("span_rests"), starts: say("span_starts"), ends: say("span_ends") };
  let view = "rests", shown = told.answer === null ? null : [told.start, told.end];

  const levels = () => {
    if (view === "rests") return Object.fromEntries((told.costs ?? []).map(([at, cost]) => [at, cost / Math.max(1, ...told.costs.map(([, each]) => each))]));
    const values = view === "starts" ? told.starts : view === "ends" ? told.ends : told.attention.map((row) => row[view]);
    const most = Math.max(...values, 0.05);
    return Object.fromEntries(values.map((value, at) => [at, value / most]));
  };
  /* What is shown of the passage: all of it, or the window that was told of, or what lies around an answer elsewhere. */
  const part = () => {
    const window = tokens.length ? [tokens[0][0], tokens.at(-1)[1]] : [0, 0], place = shown ?? window;
    if (letters.length <= WHOLE) return [0, letters.length];
    if (tokens.length && place[0] >= window[0] && place[1] <= window[1]) return window;
    return [Math.max(0, place[0] - AROUND), Math.min(letters.length, place[1] + AROUND)];
  };
  const paint = () => {
    passage.replaceChildren();
    const strength = tokens.length ? levels() : {}, [from, to] = part();
    let mark = null, last = from;
    const add = (node) => (mark ?? passage).append(node);
    if (from > 0) passage.append("… ");
    const cut = (start, end, kind, title) => {
      /* An answer may begin or end inside of what no tokens are told of. */
      const edges = shown ? shown.filter((edge) => edge > start && edge < end) : [];
      for (const [a, b] of [start, ...edges, end].map((edge, n, all) => [edge, all[n + 1]]).slice(0, -1)) {
        const inside = shown && a >= shown[0] && b <= shown[1];
        if (inside && !mark) { mark = make("mark"); passage.append(mark); }
        if (!inside) mark = null;
        add(kind || title ? make("span", { kind, title, text: text(a, b) }) : text(a, b));
      }
    };
    tokens.forEach(([start, end], at) => {
      if (start < from || end > to) return;
      if (start > last) cut(last, start);
      const level = Math.round(4 * clamp(strength[at] ?? 0, -1, 1));
      cut(start, end, level > 0 ? `for${level}` : level < 0 ? `against${-level}` : undefined, detail(at));
      last = end;
    });
    if (last < to) cut(last, to);
    if (to < letters.length) passage.append(" …");
  };
  const detail = (at) => `${say("span_starts")} ${percent(told.starts[at])} · ${say("span_ends")} ${percent(told.ends[at])}`;

  const rows = [[told.answer, told.probability, told.start, told.end], ...told.others].map(([answer, p, start, end], place) => {
    const inside = [make("span", { text: answer ?? say("span_nothing"), title: answer ?? undefined }), bar(p), make("span", { text: percent(p) })];
    const row = answer === null ? make("div", { kind: "runner" }, ...inside) : make("button", { type: "button", kind: "runner", "aria-pressed": String(place === 0), onclick: () => {
      shown = [start, end];
      for (const each of list.querySelectorAll("button")) each.setAttribute("aria-pressed", String(each === row));
      paint();
    } }, ...inside);
    return make("li", { kind: place ? "other" : "said" }, row);
  });
  const list = make("ul", { kind: "odds weighed-spans" }, ...rows);
  body.append(make("p", { kind: "soft", text: told.question }), make("p", { kind: "verdict", text: told.answer ?? say("span_none") }), sure, passage);
  if (tokens.length) {
    const choice = make("select", { "aria-label": say("span_show") }, ...Object.entries(views).map(([value, name]) => make("option", { value, text: name })), ...told.asked.map((word, at) => make("option", { value: at, text: say("span_word", { word }) })));
    const look = (value) => { view = value in views ? value : Number(value); choice.value = value; paint(); };
    choice.addEventListener("change", () => look(choice.value));
    const most = Math.max(1, ...told.asked_costs.map(Math.abs));
    const asked = make("p", { kind: "weighed" }, ...told.asked.flatMap((word, at) => {
      const level = Math.round((4 * clamp(told.asked_costs[at], -most, most)) / most);
      return [make("button", { type: "button", kind: `chip ${level > 0 ? `for${level}` : level < 0 ? `against${-level}` : ""}`, title: told.asked_costs[at].toFixed(2), text: word, onclick: () => look(String(at)) }), " "];
    }));
    const names = told.named.map((at) => `“${wordAt(at)}”`).join(", ");
    passage.before(make("p", { kind: "controls" }, make("label", {}, say("span_show"), " ", choice)));
    if (told.answer !== null) passage.after(make("p", { kind: "soft", text: names ? say("span_why", { list: names }) : say("span_lone") }));
    body.append(make("h2", { text: say("span_asked") }), make("p", { kind: "soft", text: say("span_asked_hint") }), asked);
  }
  body.append(make("h2", { text: say("span_candidates") }), make("p", { kind: "soft", text: say("span_hint") }), list);
  paint();
  return body;
}
