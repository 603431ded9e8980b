/* The offline page: every picture's explanation lies beside it as JSON. */
import { make } from "./draw.js";
import { language, say, setLanguage } from "./texts.js";
import { mount } from "./view.js";

setLanguage(document.documentElement.lang);
document.querySelector(".hint").textContent = say("hint");
const draw = () => {
  for (const article of document.querySelectorAll("article")) mount(article, JSON.parse(article.querySelector("script.explanation").textContent));
};
draw();
const toggle = make("button", { type: "button", kind: "link", text: "中文", lang: "zh" });
const named = () => { toggle.textContent = language() === "en" ? "中文" : "English"; toggle.lang = language() === "en" ? "zh" : "en"; };
toggle.addEventListener("click", () => {
  setLanguage(language() === "en" ? "zh" : "en");
  document.documentElement.lang = language();
  document.querySelector(".hint").textContent = say("hint");
  named();
  draw();
});
named();
document.querySelector("header").append(toggle);
