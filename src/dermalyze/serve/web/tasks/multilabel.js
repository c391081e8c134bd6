// Any number of labels per image, each with its own threshold. A row of tasks.js, with the functions of tasks/multiclass.js.

import { classWords } from "../classes.js";
import { el, fillOf } from "../dom.js";
import { percent, t } from "../texts.js";

const NAMED = 3; // labels in a headline; more are counted

export const NOUN = "label";

export const COLOURED = false; // the colour of a bar says whether it reaches its threshold

export function answers(result) {
  return Array.isArray(result.positive) && typeof result.thresholds === "object" && result.thresholds !== null;
}

/** Labels that reach their threshold first, then the most probable. */
export function ranked(result, descriptions) {
  const known = new Map(descriptions);
  for (const row of result.top ?? []) known.set(row.class, row.description);
  const above = new Set(result.positive ?? []);
  return Object.entries(result.probabilities ?? {})
    .map(([name, share]) => [name, classWords(name, known.get(name)), share])
    .sort((one, other) => above.has(other[0]) - above.has(one[0]) || other[2] - one[2]);
}

export function headline(result, outcome, descriptions) {
  const names = positive(result, descriptions).map(([, words]) => words);
  if (!names.length) return t("label.none");
  const kind = outcome === "answer" ? "above" : "perhaps"; // as of one class, where the checks leave a doubt
  if (names.length > NAMED) {
    return t(`label.${kind}-count`, { count: names.length, total: Object.keys(result.probabilities).length });
  }
  const key = kind === "perhaps" ? "label.perhaps" : names.length === 1 ? "label.above-one" : "label.above-many";
  return t(key, { names: names.join(", ") });
}

export function facts(result, outcome, rows, descriptions) {
  const above = positive(result, descriptions);
  const seen = above.map(([name, words, share]) => el("li", {},
    t("label.seen", { name: words, percent: percent(share, true), threshold: percent(result.thresholds[name], true) })));
  return [above.length ? [t("label.saw"), el("ul", { class: "class-list" }, seen)] : null,
    [t("answer.sure"), t(result.calibrated ? "label.sure-calibrated" : "label.sure-raw")]].filter(Boolean);
}

export function bars(result, rows) {
  const above = new Set(result.positive ?? []);
  return ([name, words, share]) => {
    const reached = above.has(name);
    const limit = result.thresholds?.[name];
    return el("li", { class: reached ? "bar label above" : "bar label", "data-class": name, "data-above": String(reached) },
      el("span", { class: "bar-name" }, words,
        el("span", { class: "mark" }, t(reached ? "label.mark-above" : "label.mark-below"))),
      el("span", { class: "bar-number" }, percent(share, true)),
      el("span", { class: "track-box", "aria-hidden": "true" }, el("span", { class: "track" }, fillOf(share)), tick(limit)),
      el("span", { class: "bar-limit small quiet" }, t("label.threshold", { threshold: percent(limit, true) })));
  };
}

export function unfolded(result) {
  return (result.positive ?? []).length;
}

export function remarks() {
  return [t("label.means")];
}

/** Heat maps of labels are graded on the most probable one. */
export function graded(result) {
  return Object.entries(result.probabilities ?? {}).reduce((best, one) => (best && best[1] >= one[1] ? best : one), null)?.[0];
}

export function cell(result, outcome, descriptions) {
  const words = positive(result, descriptions).map(([, name, probability]) => `${name} ${percent(probability)}`);
  return words.join(", ") || t("label.none-cell");
}

/** The highest of the labels that reach their threshold; null without one. */
export function share(result) {
  return result.positive.length ? Math.max(...result.positive.map((name) => result.probabilities[name])) : null;
}

export const csvHead = (labels) => ["positive", ...labels.map((name) => `p_${name}`), ...labels.map((name) => `threshold_${name}`)];

export const csvCells = (said, labels) => [(said.positive ?? []).join("|"), ...labels.map((name) => said.probabilities?.[name]),
  ...labels.map((name) => said.thresholds?.[name])];

export function classNote(name, { thresholds }) {
  return typeof thresholds?.[name] === "number" ? t("label.threshold", { threshold: percent(thresholds[name], true) }) : null;
}

/** The share that had the label takes the place of the share that was right. */
export function diagrams({ labels }) {
  return Object.entries(labels ?? {}).filter(([, bins]) => Array.isArray(bins) && bins.length)
    .map(([name, bins]) => [name, bins.map((bin) => ({ ...bin, confidence: bin.probability, accuracy: bin.share }))]);
}

function positive(result, descriptions) {
  const above = new Set(result.positive);
  return ranked(result, descriptions).filter(([name]) => above.has(name));
}

function tick(limit) {
  if (typeof limit !== "number" || limit > 1) return null;
  const line = el("span", { class: "tick-mark" });
  line.style.left = `${Math.max(0, limit * 100)}%`;
  return line;
}
