
"use strict";
/* Draws where each word looked. A grid of attention weights (rows of numbers that sum to one) is interpolated smoothly
   and laid over the picture: what was looked at stays lit with a warm glow, the rest falls into shade. */
(() => {
  /* Catmull-Rom weights of the four neighbours of a point that lies `t` (0..1) after the second: smooth, and exact on the cells. */
  const weights = (t) => [
    ((-0.5 * t + 1) * t - 0.5) * t, (1.5 * t - 2.5) * t * t + 1, ((-1.5 * t + 2) * t + 0.5) * t, (0.5 * t - 0.5) * t * t,
  ];
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  /* The value of the grid at x, y in 0..1 of the picture; a cell's weight belongs to its middle, edges repeat. */
  function sample(grid, x, y) {
    const rows = grid.length, columns = grid[0].length;
    const v = y * rows - 0.5, u = x * columns - 0.5, j = Math.floor(v), i = Math.floor(u);
    const across = weights(u - i), down = weights(v - j);
    let sum = 0;
    for (let a = 0; a < 4; a++) {
      const row = grid[clamp(j + a - 1, 0, rows - 1)];
      for (let b = 0; b < 4; b++) sum += down[a] * across[b] * row[clamp(i + b - 1, 0, columns - 1)];
    }
    return sum;
  }

  function paint(canvas, grid) {
    const wide = 160, high = Math.max(1, Math.round(wide * canvas.height / canvas.width));
    const small = document.createElement("canvas");
    small.width = wide; small.height = high;
    const brush = small.getContext("2d"), image = brush.createImageData(wide, high);
    const cells = grid.flat(), mean = 1 / cells.length;
    /* The scale ends at the strongest cell, yet never below four times the even share: attention that is spread evenly must look even. */
    const top = Math.max(Math.max(...cells), 4 * mean);
    for (let y = 0; y < high; y++) {
      for (let x = 0; x < wide; x++) {
        const n = clamp(sample(grid, (x + 0.5) / wide, (y + 0.5) / high) / top, 0, 1), at = 4 * (y * wide + x);
        const warm = clamp((n - 0.3) / 0.7, 0, 1);
        image.data[at] = 12 + 243 * warm;
        image.data[at + 1] = 14 + 140 * warm;
        image.data[at + 2] = 24 + 6 * warm;
        image.data[at + 3] = 255 * (n < 0.3 ? 0.66 * (1 - n / 0.3) + 0.10 * (n / 0.3) : 0.10 + 0.34 * warm);
      }
    }
    brush.putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
  }

  const make = (name, text, kind) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const percent = (p) => (p >= 0.01 ? Math.round(100 * p) + " %" : "< 1 %");

  function bar(p) {
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 100 9");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", "bar");
    svg.setAttribute("aria-hidden", "true");
    for (const [kind, width] of [["track", 100], ["fill", Math.max(0.6, 100 * p)]]) {
      const rect = document.createElementNS(space, "rect");
      rect.setAttribute("class", kind);
      rect.setAttribute("width", width);
      rect.setAttribute("height", 9);
      svg.append(rect);
    }
    return svg;
  }

  for (const article of document.querySelectorAll("article")) {
    const words = JSON.parse(article.querySelector("script.words").textContent);
    const buttons = [...article.querySelectorAll("button.word")];
    const canvas = article.querySelector("canvas"), region = article.querySelector(".region"), panel = article.querySelector(".panel");
    let pinned = -1, shown = -2;

    const show = (index) => {
      if (index === shown) return;
      shown = index;
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.word) === index)));
      const word = words[index];
      const drawn = Boolean(word && word.grid.length);
      canvas.classList.toggle("shown", drawn);
      region.hidden = !(word && word.box);
      panel.replaceChildren();
      if (!word) return;
      if (drawn) paint(canvas, word.grid);
      if (word.box) {
        const [x0, y0, x1, y1] = word.box, share = (value) => 100 * value + "%";
        region.style.left = share(x0); region.style.top = share(y0);
        region.style.width = share(x1 - x0); region.style.height = share(y1 - y0);
      }
      const button = buttons.find((each) => Number(each.dataset.word) === index);
      const line = make("p"), quoted = make("b", word.word);
      quoted.lang = button.parentElement.lang;
      line.append(quoted, drawn || word.box ? ` · ${panel.dataset.looked}: ${word.where}` : "");
      const list = make("ul");
      list.lang = button.parentElement.lang;
      for (const [name, p] of word.bars) {
        const item = make("li");
        item.append(make("span", name), bar(p), make("span", percent(p)));
        list.append(item);
      }
      panel.append(line, list);
    };

    buttons.forEach((button, position) => {
      const index = Number(button.dataset.word);
      button.addEventListener("mouseenter", () => show(index));
      button.addEventListener("mouseleave", () => show(pinned));
      button.addEventListener("focus", () => { if (button.matches(":focus-visible")) { pinned = index; show(index); } });
      button.addEventListener("click", () => { pinned = pinned === index ? -1 : index; shown = -2; show(pinned); });
      button.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!move) return;
        event.preventDefault();
        buttons[clamp(position + move, 0, buttons.length - 1)].focus();
      });
    });
    article.addEventListener("keydown", (event) => { if (event.key === "Escape") { pinned = -1; show(-1); } });

    /* Start with the word of the first sentence that looked at one place most clearly. */
    let best = -1, peak = 0;
    const first = buttons.filter((button) => button.parentElement === buttons[0].parentElement);
    for (const button of first) {
      const index = Number(button.dataset.word), cells = words[index].grid.flat(), high = cells.length ? Math.max(...cells) : 0;
      if (high > peak) { peak = high; best = index; }
    }
    pinned = best;
    show(best);
  }
})();
