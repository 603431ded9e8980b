// The slider of a video: the probabilities at one frame. Without script the timeline and the tables are there alone.
for (const article of document.querySelectorAll("article.film")) {
  const data = JSON.parse(article.querySelector(".explanation").textContent);
  const timeline = article.querySelector(".timeline");
  if (!timeline) continue;
  const slider = document.createElement("input");
  Object.assign(slider, { type: "range", min: 0, max: data.labels.length - 1, step: 1, value: 0 });
  slider.setAttribute("aria-label", "Frame");
  const told = document.createElement("p");
  told.setAttribute("aria-live", "polite");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [name, value] of [["y", 0], ["width", Math.max(1, data.labels.length / 400)], ["height", 120], ["fill", "currentColor"]]) line.setAttribute(name, value);
  timeline.append(line);
  article.querySelector(".drawn").append(slider, told);
  const show = () => {
    const at = Number(slider.value);
    const seconds = data.seconds[at];
    const order = data.probabilities[at].map((p, n) => [p, n]).sort((a, b) => b[0] - a[0]).slice(0, 5);
    const text = `frame ${data.frames[at]}${seconds === null ? "" : ` (${seconds.toFixed(2)} s)`}: ${data.classes[data.labels[at]]}`;
    told.textContent = `${text} · ${order.map(([p, n]) => `${data.classes[n]} ${Math.round(100 * p)} %`).join(", ")}`;
    slider.setAttribute("aria-valuetext", text);
    line.setAttribute("x", at);
  };
  slider.addEventListener("input", show);
  const go = (at) => { slider.value = at; show(); };
  timeline.addEventListener("pointerdown", (event) => {
    const box = timeline.getBoundingClientRect();
    go(Math.floor(((event.clientX - box.left) / box.width) * data.labels.length));
  });
  for (const button of article.querySelectorAll("button[data-at]")) button.addEventListener("click", () => go(Number(button.dataset.at)));
  show();
}
