// What stands on the page before the first image: which model answers, how good it is, examples to try.

import { capital } from "./answer.js";
import { classWords } from "./classes.js";
import { el } from "./dom.js";
import { taskOf } from "./tasks.js";
import { number, percent, t, third } from "./texts.js";

const EXAMPLES = "static/examples/"; // images to try
const FEW = 2; // values of a model without operating points

/** The card of a model; `take(file)` asks for an example. */
export function startCard(model, take) {
  const names = model.classes.map(({ name, description }) => classWords(name, description)).join(", ");
  const kind = String(model.modality?.title ?? "");
  const holder = el("div", {});
  examples(model.modality?.name, take).then((nodes) => holder.append(...nodes)).catch(() => {});
  return el("section", { class: "card" }, el("h2", {}, t("start.heading")),
    el("p", {}, t(taskOf(model).NOUN === "label" ? "start.labels" : "start.classes", { name: model.name, kind, classes: names })),
    ...measured(model),
    el("p", {}, el("a", { href: "#model" }, t("start.more"))),
    holder);
}

const share = ({ value, low, high }) => (typeof low === "number"
  ? t("point.interval", { value: percent(value), low: percent(low), high: percent(high) }) : percent(value));
const estimate = ({ name, value, low, high }) => `${name} ${typeof low === "number"
  ? t("model.interval", { value: third(value), low: third(low), high: third(high) }) : third(value)}`;

/** What was measured at each operating point of a model, as a list; null where there is none. */
export function pointLines(model) {
  const points = (model.operating_points ?? []).filter((point) => typeof point.sensitivity?.value === "number" && point.specificity);
  return points.length ? list(points.map((point) => t("start.point", { title: capital(point.title), sensitivity: share(point.sensitivity),
    specificity: share(point.specificity), threshold: percent(point.threshold, true) }))) : null;
}

function list(lines) {
  return el("ul", { class: "points" }, lines.map((line) => el("li", { class: "point" }, line)));
}

function measured(model) {
  const values = (model.headline?.figures ?? []).filter(({ value }) => typeof value === "number").slice(0, FEW);
  if (!values.length) return [el("p", {}, t("start.unmeasured"))];
  const { n_images: images, n_groups: groups, level } = model.headline;
  const words = t("start.measured", { images: number(images), groups: number(groups), level: percent(level) });
  return [el("p", { class: "small quiet" }, words), pointLines(model) ?? list(values.map(estimate))];
}

async function examples(kind, take) {
  const files = (await (await fetch("static/examples/examples.json")).json())[kind] ?? [];
  return files.length ? [el("p", { class: "small quiet" }, t("start.examples")),
    el("div", { class: "examples" }, files.map((file, at) => example(EXAMPLES + file, at + 1, take)))] : [];
}

function example(address, number, take) {
  const choose = async () => {
    const blob = await (await fetch(address)).blob();
    take(new File([blob], `${t("start.example", { number })}.jpg`, { type: blob.type }));
  };
  return el("button", { type: "button", class: "example", "aria-label": t("start.example", { number }), on: { click: choose } },
    el("img", { src: address, alt: "", width: 120, height: 90 }));
}
