// One class per image. A row of tasks.js; rows of an answer are [class, words, probability].

import { classWords, slots } from "../classes.js";
import { el, fillOf } from "../dom.js";
import { percent, t } from "../texts.js";

/** What it tells apart, as in the keys of texts.js. */
export const NOUN = "class";

/** Whether each has a colour of its own. */
export const COLOURED = true;

/** Whether the result holds an answer of this task at all. */
export function answers(result) {
  return Boolean(result.predicted_class);
}

/** The most probable class first. */
export function ranked(result, descriptions) {
  const known = new Map(descriptions);
  for (const row of result.top ?? []) known.set(row.class, row.description);
  if (result.predicted_class) known.set(result.predicted_class, result.predicted_class_description);
  return Object.entries(result.probabilities ?? {})
    .map(([name, share]) => [name, classWords(name, known.get(name)), share])
    .sort((one, other) => other[2] - one[2]);
}

/** One sentence; of whatever is not a refusal. */
export function headline(result, outcome, descriptions) {
  if (outcome !== "set") return t(`answer.${outcome}`, { name: predicted(result, descriptions) });
  const count = (result.prediction_set ?? []).length;
  return count > 1 ? t("answer.set", { count }) : t("answer.set-none");
}

/** What it saw and how sure it is, as pairs for `dom.pairs`. */
export function facts(result, outcome, rows, descriptions) {
  if (outcome === "set") {
    const inside = new Set(result.prediction_set ?? []);
    return [[t("answer.saw-set"), setList(rows.filter(([key]) => inside.has(key)), rows)],
      [t("answer.sure"), t("answer.sure-set", { percent: percent(result.confidence) })]];
  }
  const name = predicted(result, descriptions);
  const count = Math.round(result.confidence * 100);
  return [[t("answer.saw"), name === result.predicted_class ? name : `${name} (${result.predicted_class})`],
    [t("answer.sure"), t(result.calibrated ? "answer.sure-calibrated" : "answer.sure-raw", { percent: percent(result.confidence), count })]];
}

/** A function from a row to its bar. */
export function bars(result, rows) {
  const inside = new Set(result.prediction_set ?? []);
  const colour = slots(rows.map(([name]) => name).sort());
  return ([name, words, share]) => el("li", { class: inside.has(name) ? "bar inside" : "bar", "data-class": name },
    el("span", { class: "bar-name" }, words, inside.has(name) ? el("span", { class: "mark" }, t("answer.in-set")) : null),
    el("span", { class: "bar-number" }, percent(share, true)),
    el("span", { class: "track", "aria-hidden": "true" }, fillOf(share, `fill slot-${colour.get(name)}`)));
}

/** Rows that must not be folded away. */
export function unfolded() {
  return 0;
}

/** Sentences under the bars. */
export function remarks(result) {
  return result.prediction_set?.length ? [t("answer.set-means")] : [];
}

/** The class that the grade of a heat map holds for. */
export function graded(result) {
  return result.predicted_class;
}

/** The cell of a table: all classes where several stay possible. */
export function cell(result, outcome, descriptions) {
  if (outcome !== "set") return predicted(result, descriptions);
  const words = new Map(ranked(result, descriptions).map(([name, said]) => [name, said]));
  return (result.prediction_set ?? []).map((name) => words.get(name) ?? name).join(", ");
}

/** The probability of a table, or null. */
export function share(result) {
  return result.confidence;
}

/** Columns of the CSV, and their values of a result, or of {} where there is none to be used. */
export const csvHead = (classes) => ["predicted_class", "predicted_class_description", "confidence", "prediction_set",
  ...classes.map((name) => `p_${name}`)];

export const csvCells = (said, classes) => [said.predicted_class, said.predicted_class_description, said.confidence,
  (said.prediction_set ?? []).join("; "), ...classes.map((name) => said.probabilities?.[name])];

/** What the page about the model says of a class beside its name. */
export function classNote() {
  return null;
}

/** [name, bins] of each reliability diagram in what the server says of them. */
export function diagrams(found) {
  const bins = Array.isArray(found) ? found : found.bins;
  return Array.isArray(bins) && bins.length ? [[null, bins]] : [];
}

function predicted(result, descriptions) {
  const { predicted_class: name } = result;
  return classWords(name, result.predicted_class_description ?? descriptions.get(name));
}

function setList(inside, rows) {
  const colour = slots(rows.map(([name]) => name).sort());
  return el("ul", { class: "class-list" }, inside.map(([name, words, probability]) => el("li", {},
    el("span", { class: `dot slot-${colour.get(name)}`, "aria-hidden": "true" }), `${words}, ${percent(probability)}`)));
}
