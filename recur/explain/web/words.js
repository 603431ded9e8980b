/* The offline page of texts and videos: every explanation lies beside what is drawn as JSON. */
import { drawReading } from "./chars.js";
import { make } from "./draw.js";
import { drawFeeling } from "./feel.js";
import { drawFilm } from "./film.js";
import { drawSpan } from "./span.js";
import { language, setLanguage } from "./texts.js";
import { drawTranslation } from "./tongue.js";

const DRAW = { generate: drawReading, sentiment: drawFeeling, frames: drawFilm, span: drawSpan, translate: drawTranslation };
const draw = () => {
  for (const article of document.querySelectorAll("article")) {
    const told = JSON.parse(article.querySelector("script.explanation").textContent);
    article.querySelector(".drawn").replaceChildren(DRAW[told.task](told));
  }
};
setLanguage(document.documentElement.lang);
draw();
const toggle = make("button", { type: "button", kind: "link" });
const named = () => { toggle.textContent = language() === "en" ? "中文" : "English"; toggle.lang = language() === "en" ? "zh" : "en"; };
toggle.addEventListener("click", () => {
  setLanguage(language() === "en" ? "zh" : "en");
  document.documentElement.lang = language();
  named();
  draw();
});
named();
document.querySelector("header").append(toggle);
