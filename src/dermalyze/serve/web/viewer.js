// The picture with its heat map: one over the other with a slider, or side by side.

import { el } from "./dom.js";
import { percent, t } from "./texts.js";

const PNG_BASE64 = /^[A-Za-z0-9+/=\s]+$/;
const START = 50;

/**
 * The figure of one case.
 * `url` is the picture in this browser, shown upright as the model saw it; `heatmap` and `names` (class to words) come from
 * the server; `again(className)` asks for another class's map.
 */
export function viewer({ url, heatmap, note, names, again }) {
  const plain = picture(url);
  const sound = heatmap && typeof heatmap.png_base64 === "string" && PNG_BASE64.test(heatmap.png_base64);
  if (!sound) {
    return el("figure", { class: "viewer", "data-mode": "plain" }, el("div", { class: "pictures" }, plain),
      note ? el("figcaption", { class: "small quiet" }, note) : null);
  }
  const name = names.get(heatmap.class) ?? String(heatmap.class);
  const map = el("img", { class: "map", src: `data:image/png;base64,${heatmap.png_base64}`, alt: t("view.alt-map", { name }) });
  map.style.opacity = START / 100;
  const mapped = picture(url, "mapped");
  mapped.append(map);
  const figure = el("figure", { class: "viewer", "data-mode": "over" },
    el("div", { class: "pictures" }, plain, mapped),
    el("div", { class: "controls no-print" }, modes((mode) => { figure.dataset.mode = mode; }), slider(map),
      names.size > 1 ? chooser(heatmap.class, names, again) : null),
    el("figcaption", { class: "small quiet" }, caption(heatmap, name), note ? ` ${note}` : ""));
  return figure;
}

function picture(url, kind = "original") {
  const image = el("img", { src: url, alt: kind === "original" ? t("view.alt") : "", on: {
    error: () => {
      frame.classList.add("no-picture");
      if (kind === "original") frame.append(el("p", { class: "small quiet" }, t("view.no-show")));
      image.remove();
    },
  } });
  const frame = el("div", { class: `frame ${kind}` }, image);
  return frame;
}

function caption(heatmap, name) {
  const words = [t("view.caption", { name, method: String(heatmap.method ?? "") })];
  if (heatmap.signed) words.push(t("view.signed"));
  if (heatmap.grade) words.push(t("view.grade", { grade: String(heatmap.grade) }));
  return words.join(" ");
}

function modes(set) {
  const choice = (mode, checked) => el("label", { class: "segment" },
    el("input", { type: "radio", name: "view-mode", value: mode, checked, on: { change: () => set(mode) } }),
    el("span", {}, t(`view.${mode}`)));
  return el("fieldset", { class: "segments" }, el("legend", { class: "hidden" }, t("view.mode")),
    choice("over", true), choice("side", false), choice("plain", false));
}

function slider(map) {
  const shown = el("output", { for: "strength" }, percent(START / 100));
  const move = (event) => {
    const value = Number(event.target.value);
    map.style.opacity = value / 100;
    shown.textContent = percent(value / 100);
    event.target.setAttribute("aria-valuetext", percent(value / 100));
  };
  return el("div", { class: "slider" }, el("label", { for: "strength" }, t("view.strength")),
    el("input", { type: "range", id: "strength", min: 0, max: 100, step: 5, value: START, "aria-valuetext": percent(START / 100),
      on: { input: move } }), shown);
}

function chooser(chosen, names, again) {
  const options = [...names].map(([name, words]) => el("option", { value: name, selected: name === chosen }, words));
  return el("div", { class: "field" }, el("label", { for: "map-class" }, t("view.for")),
    el("select", { id: "map-class", on: { change: (event) => again(event.target.value) } }, options));
}
