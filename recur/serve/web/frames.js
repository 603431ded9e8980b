/* The tab of videos: its labels over time, and the frames that changed them. */
import { make } from "./draw.js";
import { drawFilm } from "./film.js";
import { TEXTS, percent, say } from "./texts.js";

Object.assign(TEXTS.en, {
  film_ask: "Show it a video", film_how: "Drop one here or choose a file: a video, or its frames as pictures in a .zip or .tar. Every frame gets one of these labels: {list}.",
  film_limits: "A model knows only scenes like those it learned from: {data}. Of any other video its labels are guesses, however sure they sound.",
  film_choose: "Choose a video", film_sending: "Sending the video …", film_reading: "Reading the video … {n} s", film_size: "{size} MB; this service takes at most {most} MB. Send a shorter or a smaller one.",
  film_took: "{n} frames in {s} s", film_still: "Your browser cannot play this file; small pictures of it are shown.",
});
Object.assign(TEXTS.zh, {
  film_ask: "给它看一段视频", film_how: "拖到这里，或选择一个文件：视频，或打包成 .zip 或 .tar 的逐帧图片。每一帧都会得到其中一个标签：{list}。",
  film_limits: "模型只认识与学习数据相似的场景：{data}。对其他视频，标签无论看起来多么确定，都只是猜测。",
  film_choose: "选择视频", film_sending: "正在发送视频……", film_reading: "正在读视频……{n} 秒", film_size: "{size} MB；本服务最多接受 {most} MB。请发送更短或更小的视频。",
  film_took: "{n} 帧，用时 {s} 秒", film_still: "浏览器无法播放此文件，改为显示小图。",
});

let now = null, busy = false, here = null; /* `here`: the tab as it is drawn now, in the language of now */

/* A video element that shows the file, or null where this browser cannot play it. */
function player(file) {
  return new Promise((done) => {
    const clip = make("video", { muted: true, playsinline: true, preload: "auto", "aria-hidden": "true" }), source = URL.createObjectURL(file);
    const give = (value) => { clearTimeout(late); if (!value) URL.revokeObjectURL(source); done(value); };
    const late = setTimeout(() => give(null), 3000);
    clip.addEventListener("loadeddata", () => give(clip), { once: true });
    clip.addEventListener("error", () => give(null), { once: true });
    clip.src = source;
  });
}

export function open(section, ask, task) {
  const status = make("p", { kind: "state", role: "status", "aria-live": "polite" }), out = make("div"), problem = make("p", { kind: "problem", role: "alert", hidden: true });
  const input = make("input", { type: "file", accept: "video/*,.mkv,.avi,.zip,.tar,.tgz,.gz" });
  const form = make("form", { kind: "card drop" }, make("h2", { text: say("film_ask") }),
    make("p", { kind: "soft", text: say("film_how", { list: (task.classes ?? []).join(", ") }) }),
    make("p", { kind: "choices" }, make("label", { kind: "button first" }, input, make("span", { text: say("film_choose") }))),
    task.learned ? make("p", { kind: "soft", text: say("film_limits", { data: task.learned }) }) : null);
  here = { status, out, problem, show: () => {
    if (!now) return;
    const { told, clip } = now, notes = told.notes.map((note) => make("p", { kind: "note", text: note }));
    if (!clip) notes.push(make("p", { kind: "note", text: say("film_still") }));
    out.replaceChildren(drawFilm(told, clip), ...notes);
    status.textContent = say("film_took", { n: told.labels.length, s: now.seconds.toFixed(1) });
  } };
  const fail = (why) => { here.status.textContent = ""; here.problem.textContent = say("failed", { why }); here.problem.hidden = false; };
  const read = async (file) => {
    if (busy) return;
    problem.hidden = true;
    const most = task.most ?? Infinity;
    if (file.size > most) { fail(say("film_size", { size: (file.size / 1e6).toFixed(1), most: (most / 1e6).toFixed(0) })); return; }
    busy = true;
    out.setAttribute("aria-busy", "true");
    const begun = performance.now();
    status.textContent = say("film_sending");
    const clock = setInterval(() => { here.status.textContent = say("film_reading", { n: Math.round((performance.now() - begun) / 1000) }); }, 1000);
    try {
      const [told, clip] = await Promise.all([ask("/v1/explain/frames", file, {}, "video"), player(file)]);
      if (now?.clip) URL.revokeObjectURL(now.clip.src);
      now = { told, clip, seconds: (performance.now() - begun) / 1000 };
      clearInterval(clock);
      here.show();
    } catch (error) { fail(error.message); } finally { clearInterval(clock); busy = false; here.out.removeAttribute("aria-busy"); }
  };
  input.addEventListener("change", () => { if (input.files.length) read(input.files[0]); input.value = ""; });
  section.dropped = read;
  section.replaceChildren(form, status, problem, out);
  here.show();
}
