// The page about the model: what it is, what it was measured at, whether its probabilities hold, its card.

import { card, reliability } from "./api.js";
import { markdown } from "./card.js";
import { classWords, slots } from "./classes.js";
import { el, pairs, svg } from "./dom.js";
import { pointLines } from "./start.js";
import { taskOf } from "./tasks.js";
import { number, percent, t, third, tOr } from "./texts.js";

/** The page of one model, as /v1/models describes it; card and diagram follow when they come. */
export function modelPage(model) {
  const holder = (load) => {
    const node = el("div", {}, el("p", { class: "quiet" }, t("model.loading")));
    load().then((content) => node.replaceChildren(content))
      .catch((error) => node.replaceChildren(el("p", { class: "quiet" }, error.line ?? t("error.garbled"))));
    return node;
  };
  return el("div", { class: "stack" },
    el("section", { class: "card" }, el("h2", {}, model.name), facts(model)),
    el("section", { class: "card" }, el("h2", {}, t(`model.answers-${taskOf(model).NOUN}`)), classes(model)),
    model.headline ? el("section", { class: "card" }, el("h2", {}, t("model.headline")), headline(model.headline),
      pointLines(model)) : null,
    el("section", { class: "card" }, el("h2", {}, t("model.reliability")), holder(async () => {
      const found = await reliability(model.name);
      const rows = found ? taskOf(model).diagrams(found) : [];
      return rows.length ? diagrams(rows, model) : el("p", { class: "quiet" }, t("model.reliability-none"));
    })),
    el("section", { class: "card" }, el("h2", {}, t("model.card")), holder(async () => {
      const text = await card(model.name);
      return text === null ? el("p", { class: "quiet" }, t("model.card-none")) : el("div", { class: "markdown" }, markdown(text));
    })));
}

function facts(model) {
  const inputs = (model.metadata ?? []).map(({ name }) => tOr(`field.${name}`, name));
  return pairs([
    [t("model.hash"), el("code", {}, model.sha256 ?? "–")],
    [t("model.recipe"), model.recipe ?? "–"],
    model.modality ? [t("model.modality"), String(model.modality.title)] : null,
    model.input ? [t("model.input"), t("model.input-value", model.input)] : null,
    [t("model.metadata"), inputs.join(", ") || t("model.metadata-none")],
    [t("model.calibrated"), t(model.calibrated ? "model.calibrated-yes" : "model.calibrated-no")],
    [t("model.cam"), model.cam && model.cam !== "none"
      ? t(model.cam_grade?.verdict === "no better" ? "model.cam-weak" : "model.cam-yes", { cam: String(model.cam).replaceAll("_", " ") })
      : t("model.cam-no")],
    model.licence_note ? [t("model.license"), model.licence_note] : null,
    model.accepted_leak ? [t("answer.leak"), t("answer.leak-because", { reason: model.accepted_leak })] : null,
  ]);
}

function classes(model) {
  const colour = slots(model.classes.map(({ name }) => name).sort());
  const note = (name) => {
    const words = taskOf(model).classNote(name, model);
    return words ? el("span", { class: "quiet small" }, ` ${words}`) : null;
  };
  return el("ul", { class: "class-list" }, model.classes.map(({ name, description }) => el("li", {},
    taskOf(model).COLOURED ? el("span", { class: `dot slot-${colour.get(name)}`, "aria-hidden": "true" }) : null,
    classWords(name, description), description && description !== name ? el("span", { class: "quiet" }, ` ${name}`) : null, note(name))));
}

function headline({ figures = [], set, n_images: images, n_groups: groups, level }) {
  const words = ({ value, low, high, note }) => {
    if (value == null) return note || "–";
    return low == null ? third(value) : t("model.interval", { value: third(value), low: third(low), high: third(high) });
  };
  const note = t("model.headline-note", { set, images: number(images), groups: number(groups), level: percent(level) });
  return [pairs(figures.map((row) => [row.name, words(row)]), "facts wide"), el("p", { class: "small quiet" }, note)];
}

const [SIZE, LEFT, RIGHT, TOP, BOTTOM] = [340, 54, 22, 12, 48];

/** The diagrams of a model: one, or one for each label with a choice among them. */
function diagrams(rows, model) {
  const noun = taskOf(model).NOUN;
  if (rows.length === 1 && rows[0][0] === null) return diagram(rows[0][1], noun);
  const words = new Map(model.classes.map(({ name, description }) => [name, classWords(name, description)]));
  const holder = el("div", {}, diagram(rows[0][1], noun));
  const choose = (event) => holder.replaceChildren(diagram(rows[event.target.selectedIndex][1], noun));
  return el("div", {}, el("div", { class: "field" }, el("label", { for: "diagram-of" }, t("model.reliability-of")),
    el("select", { id: "diagram-of", on: { change: choose } },
      rows.map(([name]) => el("option", { value: name }, words.get(name) ?? name)))), holder);
}

/** Accuracy over confidence, or share with a label over its probability; a point a bin, its area by the images in it. */
export function diagram(bins, noun = "class") {
  const full = bins.map((bin) => ({ ...bin, count: bin.count ?? bin.n })).filter((bin) => bin.count > 0 && Number.isFinite(bin.confidence) && Number.isFinite(bin.accuracy));
  const most = Math.max(...full.map((bin) => bin.count));
  const x = (share) => LEFT + share * (SIZE - LEFT - RIGHT);
  const y = (share) => SIZE - BOTTOM - share * (SIZE - TOP - BOTTOM);
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const words = (bin) => t(`model.reliability-point-${noun}`, { confidence: percent(bin.confidence), accuracy: percent(bin.accuracy), count: bin.count });
  const interval = (bin) => (Number.isFinite(bin.low) && Number.isFinite(bin.high)
    ? svg("line", { class: "interval", x1: x(bin.confidence), x2: x(bin.confidence), y1: y(bin.low), y2: y(bin.high) }) : null);
  const chart = svg("svg", { class: "diagram", viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img",
    "aria-label": t("model.reliability-alt", { points: full.map(words).join("; ") }) },
    ticks.map((share) => svg("g", { class: "tick" },
      svg("line", { x1: x(0), x2: x(1), y1: y(share), y2: y(share) }), svg("line", { x1: x(share), x2: x(share), y1: y(0), y2: y(1) }),
      svg("text", { x: LEFT - 8, y: y(share) + 4, "text-anchor": "end" }, percent(share)),
      svg("text", { x: x(share), y: SIZE - BOTTOM + 18, "text-anchor": "middle" }, percent(share)))),
    svg("line", { class: "ideal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
    full.map(interval),
    svg("polyline", { class: "curve", points: full.map((bin) => `${x(bin.confidence)},${y(bin.accuracy)}`).join(" ") }),
    full.map((bin) => svg("circle", { class: "dot-of-bin", cx: x(bin.confidence), cy: y(bin.accuracy), r: 3 + 6 * Math.sqrt(bin.count / most) },
      svg("title", {}, words(bin)))),
    svg("text", { class: "axis", x: (x(0) + x(1)) / 2, y: SIZE - 8, "text-anchor": "middle" }, t("model.reliability-x")),
    svg("text", { class: "axis", "text-anchor": "middle", transform: `translate(13 ${(y(0) + y(1)) / 2}) rotate(-90)` }, t(`model.reliability-y-${noun}`)));
  const head = ["model.reliability-x", `model.reliability-y-${noun}`, "model.reliability-count"];
  return el("div", { class: "reliability" }, chart, el("div", {},
    el("p", {}, t(`model.reliability-note-${noun}`)),
    el("details", {}, el("summary", {}, t("model.reliability-table")), el("table", {},
      el("thead", {}, el("tr", {}, head.map((key) => el("th", { scope: "col", class: "number" }, t(key))))),
      el("tbody", {}, full.map((bin) => el("tr", {}, [percent(bin.confidence), percent(bin.accuracy), number(bin.count)]
        .map((text) => el("td", { class: "number" }, text)))))))));
}
