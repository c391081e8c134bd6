// The picture with its heat map: one over the other with a slider, or side by side.

import { el } from "./dom.js";
import { number, percent, t, third } from "./texts.js";

const PNG_BASE64 = /^[A-Za-z0-9+/=\s]+$/;
const START = 50;

/**
 * The figure of one case.
 * `url` is the picture in this browser, shown upright as the model saw it; `heatmap`, `names` (class to words) and the class
 * that the grade of maps holds for (`graded`) come from the server; `noun` is what the task tells apart;
 * `again(className)` asks for another class's map.
 */
export function viewer({ url, heatmap, note, names, graded, noun, again }) {
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
  const figure = el("figure", { class: `viewer ${VERDICTS.get(heatmap.grade?.verdict) ?? ""}`, "data-mode": "over" },
    el("div", { class: "pictures" }, plain, mapped),
    el("div", { class: "controls no-print" }, modes((mode) => { figure.dataset.mode = mode; }), slider(map),
      names.size > 1 ? chooser(heatmap.class, names, again) : null),
    grade(heatmap.grade, heatmap.class !== graded, noun),
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
  return words.join(" ");
}

const VERDICTS = new Map([["better", "better"], ["no better", "no-better"]]);

/** How far maps of this model can be trusted, in plain words. What the page does not understand counts as not graded. */
function grade(found, ofAnother, noun) {
  const key = VERDICTS.get(found?.verdict) ?? "not-graded";
  const count = number(found?.groups);
  const unknown = key === "not-graded";
  const means = unknown && found?.groups > 0 ? "grade.few" : `grade.${key}-means`;
  const figures = unknown ? null : t("grade.figures", { faithfulness: estimate(found.faithfulness),
    center: estimate(found.over?.centre), random: estimate(found.over?.random), level: percent(found.level) });
  return el("div", { class: `grade ${key}`, "data-grade": key },
    el("p", { class: "badge" }, t(`grade.${key}`)),
    el("p", {}, t(means, { count, floors: floorsNotBeaten(found?.over) }), !unknown && ofAnother ? ` ${t(`grade.other-${noun}`)}` : ""),
    figures ? el("p", { class: "small quiet" }, figures) : null);
}

function floorsNotBeaten(over) {
  const [one, other] = ["centre", "random"].filter((floor) => typeof over?.[floor]?.low === "number" && over[floor].low <= 0).map((floor) => t(`grade.${floor === "centre" ? "center" : floor}`));
  return other ? t("grade.or", { one, other }) : one ?? t("grade.floors");
}

function estimate(one) {
  if (typeof one?.value !== "number") return "–";
  return typeof one.low !== "number" ? third(one.value)
    : t("model.interval", { value: third(one.value), low: third(one.low), high: third(one.high) });
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
