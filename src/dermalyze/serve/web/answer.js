// One case: the outcome in plain words first, then what it rests on.

import { classWords, slots } from "./classes.js";
import { el, pairs } from "./dom.js";
import { LANGUAGE, number, percent, t, tOr } from "./texts.js";
import { viewer } from "./viewer.js";

const SHOWN_CLASSES = 10;

/** "refer", "set", "caution" or "answer": what the whole answer comes to. The most careful of all verdicts wins. */
export function outcomeOf(result) {
  if (result.decision === "refer" || result.verdict === "refer" || result.abstain || !result.predicted_class) return "refer";
  if (result.decision === "set") return "set";
  return result.verdict === "caution" ? "caution" : "answer";
}

/** [class, words, probability], the most probable first. */
export function ranked(result, descriptions) {
  const known = new Map(descriptions);
  for (const row of result.top ?? []) known.set(row.class, row.description);
  if (result.predicted_class) known.set(result.predicted_class, result.predicted_class_description);
  return Object.entries(result.probabilities ?? {})
    .map(([name, share]) => [name, classWords(name, known.get(name)), share])
    .sort((one, other) => other[2] - one[2]);
}

/** One sentence for a screen reader and the table. */
export function headline(result, descriptions) {
  const outcome = outcomeOf(result);
  if (outcome === "refer") return t("answer.refer");
  if (outcome === "set") return setTitle(result);
  return t(`answer.${outcome}`, { name: classWords(result.predicted_class, descriptionOf(result, descriptions)) });
}

/**
 * The page of one case.
 * `one` has file name, url, result, model, metadata and time; `descriptions` is class to words; `actions` are buttons.
 */
export function answerPage(one, descriptions, { actions, again }) {
  const { result } = one;
  const outcome = outcomeOf(result);
  const rows = ranked(result, descriptions);
  const names = new Map(rows.map(([name, words]) => [name, words]));
  const refused = outcome === "refer";
  const figure = viewer({ url: one.url, heatmap: refused ? null : result.heatmap, note: result.heatmap_note, names,
    predicted: result.predicted_class, again });
  const numbers = rows.length ? probabilities(result, rows, refused) : null;
  return el("article", { class: "case", "aria-labelledby": "answer-heading" },
    verdict(result, outcome, rows, descriptions),
    el("div", { class: "columns" },
      el("section", { class: "card" }, el("h3", {}, t("view.heading")), figure),
      refused
        ? el("div", { class: "stack" }, checks(result), numbers
          ? el("details", { class: "card computed" }, el("summary", {}, t("answer.computed")), numbers) : null)
        : el("div", { class: "stack" }, numbers, provenance(one))),
    refused ? provenance(one) : checks(result),
    el("div", { class: "buttons no-print" }, actions));
}

function verdict(result, outcome, rows, descriptions) {
  const name = classWords(result.predicted_class, descriptionOf(result, descriptions));
  const reasons = (result.reasons ?? []).map(String);
  const facts = [];
  if (outcome === "set") {
    const inside = new Set(result.prediction_set ?? []);
    facts.push([t("answer.saw"), setList(rows.filter(([key]) => inside.has(key)), rows)]);
    facts.push([t("answer.sure"), t("answer.sure-set", { percent: percent(result.confidence) })]);
  } else if (outcome !== "refer") {
    facts.push([t("answer.saw"), name === result.predicted_class ? name : `${name} (${result.predicted_class})`]);
    const count = Math.round(result.confidence * 100);
    facts.push([t("answer.sure"), t(result.calibrated ? "answer.sure-calibrated" : "answer.sure-raw",
      { percent: percent(result.confidence), count })]);
  }
  if (outcome !== "refer") {
    const key = { answer: "answer.refer-no", caution: "answer.refer-caution", set: "answer.refer-set" }[outcome];
    facts.push([t("answer.refer-to"), t(key)]);
  }
  if (reasons.length) {
    facts.push([t("answer.why"), reasons.length === 1 ? reasons[0] : el("ul", {}, reasons.map((words) => el("li", {}, words)))]);
  }
  if (result.accepted_leak) facts.push([t("answer.leak"), t("answer.leak-because", { reason: result.accepted_leak })]);
  return el("section", { class: `verdict ${outcome}`, "data-outcome": outcome },
    el("p", { class: "tag" }, t(`answer.tag-${outcome}`)),
    el("h2", { id: "answer-heading", tabindex: "-1" }, headline(result, descriptions)),
    outcome === "refer" ? el("p", { class: "refer-lead" }, t("answer.refer-lead")) : null,
    pairs(facts));
}

function descriptionOf(result, descriptions) {
  return result.predicted_class_description ?? descriptions.get(result.predicted_class);
}

function setTitle(result) {
  const count = (result.prediction_set ?? []).length;
  return count > 1 ? t("answer.set", { count }) : t("answer.set-none");
}

function setList(inside, rows) {
  const colour = slots(rows.map(([name]) => name).sort());
  return el("ul", { class: "class-list" }, inside.map(([name, words, share]) => el("li", {},
    el("span", { class: `dot slot-${colour.get(name)}`, "aria-hidden": "true" }), `${words}, ${percent(share)}`)));
}

function probabilities(result, rows, refused) {
  const inside = new Set(refused ? [] : result.prediction_set ?? []);
  const colour = slots(rows.map(([name]) => name).sort());
  const bar = ([name, words, share]) => {
    const fill = el("span", { class: refused ? "fill" : `fill slot-${colour.get(name)}` });
    fill.style.width = `${Math.min(100, Math.max(0, share * 100))}%`;
    return el("li", { class: inside.has(name) ? "bar inside" : "bar", "data-class": name },
      el("span", { class: "bar-name" }, words, inside.has(name) ? el("span", { class: "mark" }, t("answer.in-set")) : null),
      el("span", { class: "bar-number" }, percent(share, true)),
      el("span", { class: "track", "aria-hidden": "true" }, fill));
  };
  const list = (some) => el("ul", { class: "bars" }, some.map(bar));
  const rest = rows.slice(SHOWN_CLASSES);
  const words = [t(result.calibrated ? "answer.calibrated" : "answer.not-calibrated")];
  if (inside.size) words.push(t("answer.set-means"));
  return el("section", { class: refused ? "probabilities" : "probabilities card" },
    el("h3", {}, t(result.calibrated ? "answer.probabilities" : "answer.scores")),
    list(rows.slice(0, SHOWN_CLASSES)),
    rest.length ? el("details", {}, el("summary", {}, t("answer.more", { count: rest.length })), list(rest)) : null,
    el("p", { class: "small quiet" }, words.join(" ")));
}

const STATE = { true: "ok", false: "bad", accept: "ok", caution: "caution", refer: "bad" };

function checks(result) {
  const rows = [];
  for (const check of result.quality?.checks ?? []) {
    const numbers = check.value == null ? "" : check.limit == null ? t("check.score", { value: number(check.value) })
      : t("check.numbers", { value: number(check.value), limit: limitWords(check.limit) });
    const name = tOr(`check.${check.name}`, String(check.name).replaceAll("_", " "));
    const state = !check.ok && result.quality.verdict === "caution" ? "caution" : STATE[check.ok];
    const plain = check.ok && String(check.words).startsWith(check.name); // says no more than its name and state
    rows.push(checkRow(name, state, plain ? "" : check.words, numbers));
  }
  if (!rows.length && result.quality) rows.push(checkRow(t("check.quality"), STATE[result.quality.verdict], "", ""));
  if (result.modality) {
    const score = result.modality.score;
    const state = score == null && result.modality.verdict === "accept" ? undefined : STATE[result.modality.verdict];
    rows.push(checkRow(t("check.modality"), state, result.modality.words, score == null
      ? "" : t("check.score", { value: number(score) })));
  }
  const ood = result.ood;
  rows.push(ood ? checkRow(t("check.ood"), STATE[ood.ok], t(ood.ok ? "check.ood-ok" : "check.ood-bad"),
    ood.threshold == null ? t("check.score", { value: number(ood.score) })
      : t("check.numbers", { value: number(ood.score), limit: number(ood.threshold) }))
    : checkRow(t("check.ood"), undefined, t("check.ood-none"), ""));
  return el("section", { class: "card" }, el("h3", {}, t("answer.checks")), el("ul", { class: "checks" }, rows));
}

function limitWords(limit) {
  return Array.isArray(limit) ? limit.map(number).join(" – ") : number(limit);
}

function checkRow(name, state, words, numbers) {
  return el("li", { class: `check ${state ?? "none"}` },
    el("span", { class: "badge" }, t(`check.${state ?? "none"}`)),
    el("span", { class: "check-words" }, el("strong", {}, name), words ? ` ${words}` : "",
      numbers ? el("span", { class: "small quiet numbers" }, numbers) : null));
}

function provenance(one) {
  const { result, model } = one;
  const given = Object.entries(one.metadata).map(([name, value]) => `${tOr(`field.${name}`, name)}: ${value}`);
  const unknown = result.metadata_unknown ?? null;
  const person = unknown === null ? null : [
    given.join(", ") || t("answer.used-none"), unknown.length ? t("answer.unknown", { names: unknown.join(", ") }) : "",
  ].filter(Boolean).join(". ");
  const when = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "short" }).format(one.time);
  const notes = (result.notes ?? []).map(String);
  return el("section", { class: "card provenance" }, pairs([
    [t("answer.file"), one.name],
    [t("answer.model"), `${model.name ?? "–"}, ${model.recipe ?? "–"}, SHA-256 ${String(model.sha256 ?? "–").slice(0, 16)}`],
    [t("answer.when"), when],
    person === null ? null : [t("answer.used"), person],
    notes.length ? [t("answer.notes"), notes.join("; ")] : null,
  ], "facts small"));
}
