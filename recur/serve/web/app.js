/* The page of the service: a picture in, sentences out, and everything behind them. */
import { make } from "./draw.js";
import { TEXTS, language, say, setLanguage } from "./texts.js";
import { mount } from "./view.js";

Object.assign(TEXTS.en, {
  ask: "Show it a picture", how: "Drop one here, paste it, or choose a file. It is described in English and Chinese, and every word shows where it came from.",
  choose: "Choose a picture", photograph: "Take a photograph", stays: "What you give it goes to this computer’s own service and nowhere else.",
  programs: "For programs", token: "Token", use_token: "Use it", look: "Looking …", took: "{ms} ms", title: "recur · a sentence about your picture",
  network_down: "the service does not answer; is it still running?", need_token: "The service asks for a token.",
  task_caption: "Picture", task_sentiment: "Sentiment", task_translate: "Translation", task_language: "Text", task_answer: "Stories", task_span: "Answers", task_frames: "Video",
});
Object.assign(TEXTS.zh, {
  ask: "给它看一张图片", how: "拖到这里、粘贴，或选择一个文件。它会用英文和中文描述图片，每个词都能看到来自哪里。",
  choose: "选择图片", photograph: "拍一张照片", stays: "您给它的内容只发送到这台计算机自己的服务，不会去别处。",
  programs: "供程序使用", token: "令牌", use_token: "使用", look: "正在看……", took: "{ms} 毫秒", title: "recur · 为你的图片写一句话",
  network_down: "服务没有应答；它还在运行吗？", need_token: "服务需要令牌。", task_caption: "图片", task_sentiment: "情感", task_translate: "翻译", task_language: "文字", task_answer: "故事", task_span: "问答", task_frames: "视频",
});

const find = (id) => document.getElementById(id);
const result = find("result"), status = find("status"), problem = find("problem"), drop = find("drop"), key = find("key");
const served = new Set();
const again = []; /* opens each tab anew, in another language */
let token = "", turn = 0, now = null, started = false, opened = null; /* the section of the tab that is open */

async function send(path, file, options, name, accept) {
  const form = new FormData();
  if (file) form.append(name, file, "file");
  for (const [name, value] of Object.entries(options)) form.append(name, value);
  let answer;
  try {
    answer = await fetch(path, { method: "POST", body: form, headers: { accept, ...(token ? { authorization: `Bearer ${token}` } : {}) } });
  } catch { throw new Error(say("network_down")); }
  if (answer.status === 401) { key.hidden = false; key.querySelector("input").focus(); }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({ error: `HTTP ${answer.status}` }))).error);
  return answer;
}

async function ask(path, file, options, name = "image") {
  return (await send(path, file, options, name, "application/json")).json();
}

/* The same, its events one by one as they come: `each(object)`. */
ask.events = async (path, options, each) => {
  const answer = await send(path, null, options, "", "text/event-stream");
  const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await lines.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const [name, data] = block.split("\n"), told = JSON.parse(data.slice("data: ".length));
      if (name === "event: error") throw new Error(told.error);
      each(told);
    }
  }
};

/* Pictures of many megabytes are made smaller here, where the browser can read them: what is seen is 224 pixels wide. */
async function smaller(file) {
  if (file.size < 1_500_000 || !/^image\/(jpeg|png|webp|avif)$/.test(file.type)) return file;
  try {
    const bitmap = await createImageBitmap(file), scale = Math.min(1, 1280 / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return blob ?? file;
  } catch { return file; }
}

function fail(error) {
  status.textContent = "";
  problem.textContent = say("failed", { why: error.message });
  problem.hidden = false;
}

async function describe(file) {
  const mine = ++turn, begun = performance.now();
  problem.hidden = true;
  status.textContent = say("look");
  try {
    const picture = await smaller(file);
    const objects = served.has("detect") ? ask("/v1/detect", picture, {}).then((found) => found.objects, () => []) : [];
    const data = await ask("/v1/explain/caption", picture, { detail: "words" });
    if (mine !== turn) return;
    if (now) URL.revokeObjectURL(now.source);
    /* Formats that the browser cannot show (HEIC, TIFF) still get their sentences. */
    now = { file: picture, source: URL.createObjectURL(picture), data };
    show();
    status.textContent = say("took", { ms: Math.round(performance.now() - begun) });
    /* The rest comes into the page that is read already: the objects, and the inside of the network. */
    const found = await objects;
    if (mine !== turn) return;
    now.data.objects = found;
    now.view.found(found);
    const full = await ask("/v1/explain/caption", picture, { detail: "inside" });
    if (mine !== turn) return;
    full.objects = found;
    now.data = full;
    now.view.enrich(full);
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

function show() {
  document.body.classList.add("has-result");
  result.hidden = false;
  result.replaceChildren();
  const { file } = now;
  now.view = mount(result, now.data, {
    source: now.source,
    goOn: async (lang, words) => ask("/v1/explain/caption", file, { lang, beginning: JSON.stringify(words) }),
  });
  const caption = result.querySelector("figcaption");
  result.querySelector(".reading").prepend(make("p", { kind: "hint", text: say("hint") }));
  caption.textContent = `${now.data.picture.width} × ${now.data.picture.height}`;
  for (const note of now.data.picture.notes) caption.after(make("p", { kind: "note", text: note }));
}

function speak() {
  document.documentElement.lang = language();
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  const button = find("language");
  button.textContent = language() === "en" ? "中文" : "English";
  button.lang = language() === "en" ? "zh" : "en";
  for (const button of find("tasks").children) button.textContent = say(`task_${button.dataset.task}`);
  for (const open of again) open();
  if (now) show();
}

find("language").addEventListener("click", () => {
  setLanguage(language() === "en" ? "zh" : "en");
  problem.hidden = true;
  status.textContent = "";
  speak();
});
for (const input of document.querySelectorAll("input[type=file]")) {
  input.addEventListener("change", () => { if (input.files.length) describe(input.files[0]); input.value = ""; });
}
let inside = 0;
addEventListener("dragenter", (event) => { event.preventDefault(); inside++; drop.classList.add("over"); });
addEventListener("dragleave", () => { if (--inside <= 0) { inside = 0; drop.classList.remove("over"); } });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  drop.classList.remove("over");
  const file = event.dataTransfer.files[0];
  if (file) (find("home").hidden ? opened?.dropped : describe)?.(file);
});
addEventListener("paste", (event) => {
  if (find("home").hidden) return;
  const file = [...event.clipboardData.files][0];
  if (file) describe(file);
});
key.addEventListener("submit", (event) => {
  event.preventDefault();
  token = key.querySelector("input").value;
  key.hidden = true;
  problem.hidden = true;
  start();
});

/* Other tasks bring a module each, `open(section, ask, task)`, which the service names; captions are the page itself. */
async function start() {
  if (started) return;
  const answer = await fetch("/v1/tasks", { headers: token ? { authorization: `Bearer ${token}` } : {} }).catch(() => null);
  if (answer?.status === 401) { key.hidden = false; status.textContent = say("need_token"); return; }
  if (!answer?.ok) return;
  started = true;
  status.textContent = "";
  const { tasks, max_bytes } = await answer.json();
  for (const { task } of tasks) served.add(task);
  const nav = find("tasks"), tabs = tasks.filter((each) => each.tab);
  if (!tabs.length) return;
  nav.hidden = false;
  const home = find("home"), sections = new Map([["caption", home]]);
  const buttons = [{ task: "caption" }, ...tabs].map((each) => make("button", {
    type: "button", kind: "chip", "data-task": each.task, text: say(`task_${each.task}`), "aria-pressed": String(each.task === "caption"),
    onclick: async () => {
      if (!sections.has(each.task)) {
        const section = make("section", {}), module = await import(each.tab);
        sections.set(each.task, section);
        home.after(section);
        const told = { ...each, most: max_bytes };
        module.open(section, ask, told);
        again.push(() => module.open(section, ask, told));
      }
      opened = sections.get(each.task);
      for (const section of sections.values()) section.hidden = section !== opened;
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.task === each.task));
    },
  }));
  nav.append(...buttons);
}

setLanguage((navigator.language || "en").startsWith("zh") ? "zh" : "en");
speak();
start();
