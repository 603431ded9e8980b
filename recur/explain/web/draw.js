/* Small tools: elements, bars, colours, numbers that come packed in 8 bits, and the light on the picture. */
const SVG = "http://www.w3.org/2000/svg";

export function make(name, options = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(options)) {
    if (key === "text") element.textContent = value;
    else if (key === "kind") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function shape(name, attributes = {}, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export function bar(p) {
  const svg = shape("svg", { viewBox: "0 0 100 9", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" });
  svg.append(shape("rect", { class: "track", width: 100, height: 9 }), shape("rect", { class: "fill", width: Math.max(0.6, 100 * p), height: 9 }));
  return svg;
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/* Catmull-Rom weights of the four neighbours of a point `t` (0..1) after the second: smooth, and exact on the cells. */
const weights = (t) => [
  ((-0.5 * t + 1) * t - 0.5) * t, (1.5 * t - 2.5) * t * t + 1, ((-1.5 * t + 2) * t + 0.5) * t, (0.5 * t - 0.5) * t * t,
];

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

/* Lights up where a grid of attention (rows that add up to one) lies, and shades the rest. */
export function paintLight(canvas, grid) {
  const wide = 160, high = Math.max(1, Math.round((wide * canvas.height) / canvas.width));
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
      image.data[at + 3] = 255 * (n < 0.3 ? 0.66 * (1 - n / 0.3) + 0.1 * (n / 0.3) : 0.1 + 0.34 * warm);
    }
  }
  brush.putImageData(image, 0, 0);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/* Numbers packed as {scale, int8}: a function of their place. */
export function unpack(packed) {
  const raw = atob(packed.int8), bytes = new Int8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return (place) => bytes[place] * packed.scale;
}

/* The colour of a number from -1 to 1: blue, paper, orange. */
export function colour(value) {
  const v = clamp(value, -1, 1), strength = Math.sqrt(Math.abs(v));
  const [r, g, b] = v < 0 ? [38, 104, 190] : [222, 110, 18], paper = 238;
  return [paper + (r - paper) * strength, paper + (g - paper) * strength, paper + (b - paper) * strength];
}

/* The same as a colour that lies on the page's own, dark or light, and leaves text on it readable. */
export function tint(value, most = 0.65) {
  const v = clamp(value, -1, 1), [r, g, b] = v < 0 ? [38, 104, 190] : [222, 110, 18];
  return `rgb(${r} ${g} ${b} / ${(most * Math.sqrt(Math.abs(v))).toFixed(3)})`;
}

/* A canvas of rows × columns of numbers, one pixel each; `value(row, column)` from -1 to 1. */
export function paintCells(canvas, rows, columns, value) {
  canvas.width = columns; canvas.height = rows;
  const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = 4 * (row * columns + column), [r, g, b] = colour(value(row, column));
      image.data[at] = r; image.data[at + 1] = g; image.data[at + 2] = b; image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}
