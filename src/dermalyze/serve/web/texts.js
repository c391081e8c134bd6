// Every word of the page, in one place. To translate: change LANGUAGE and the right-hand sides; {names} stay as they are.
// What the server says itself (reasons, notes, descriptions of classes) is shown as it comes.

export const LANGUAGE = "en-GB";

const TEXTS = {
  "page.title": "dermalyze",
  "page.skip": "Skip to the content",
  "page.nav": "Pages",
  "page.disclaimer": "Research and education. Not a medical device, not a diagnosis.",
  "nav.picture": "Picture",
  "nav.model": "The model",

  "ask.heading": "What does the model see?",
  "ask.lead": "One picture gives an answer with its grounds, or a refusal. Several give a table.",
  "ask.drop": "Drop pictures here, paste one, or",
  "ask.choose": "Choose pictures",
  "ask.photo": "Take a photo",
  "ask.stop": "Stop",
  "ask.privacy": "Pictures go to this server alone, which stores none. File names stay in this browser.",
  "ask.model": "Model",
  "ask.images": "A further image",
  "ask.images-hint": "This model also uses a second image of the same {subject}. Choose it first, then the first image; it holds for one sample.",
  "ask.one-sample": "The second image was left out: it belongs to one sample, and several were chosen.",
  "field.image_2": "Second image",
  "ask.metadata": "About the person",
  "ask.metadata-hint": "This model uses these. Leave empty what you do not know; for several pictures they hold for all.",
  "ask.explain": "Draw a heat map",
  "ask.again": "Answer again with these",
  "ask.unknown": "not known",
  "ask.range": "the model has seen {low} to {high}",
  "ask.cleared": "What was entered about the person before was cleared.",

  "field.age": "Age in years",
  "field.sex": "Sex",
  "field.site": "Place on the body",

  "camera.heading": "Take a photo",
  "camera.view": "View of the camera",
  "camera.take": "Take it",
  "camera.close": "Close",
  "camera.refused": "The camera cannot be used: {reason}. Choose a file instead.",

  "status.asking": "The model is looking.",
  "status.asking-many": "{done} of {total} pictures answered",
  "status.waiting": "{done} of {total} pictures answered; the server is busy, going on in {seconds} s",
  "status.done-many": "Done. {summary}.",
  "status.stopped": "Stopped. {summary}.",
  "status.sorted": "Sorted by {column}, {direction}.",
  "status.ascending": "ascending",
  "status.descending": "descending",

  "answer.heading": "Answer",
  "answer.answer": "Most likely: {name}",
  "answer.caution": "Perhaps: {name}",
  "answer.set": "Undecided between {count} classes",
  "answer.set-none": "Undecided",
  "answer.refer": "No answer: a person should look at this",
  "answer.refer-lead": "The model declines. Nothing below is an answer about this picture.",
  "answer.tag-answer": "Answered",
  "answer.tag-caution": "With caution",
  "answer.tag-set": "Several possible",
  "answer.tag-refer": "Refused",
  "answer.saw": "What it saw",
  "answer.saw-set": "One of: {names}",
  "answer.sure": "How sure",
  "answer.sure-calibrated": "{percent}. Of 100 such answers about {count} are right, on pictures like those it was calibrated on.",
  "answer.sure-raw": "Score {percent}. This model is not calibrated: take it for a rank, not for a probability.",
  "answer.sure-set": "Not enough for one class: the most probable has {percent}.",
  "answer.refer-to": "Refer it?",
  "answer.refer-no": "Not by the model’s own rules. See a doctor about anything that worries you, whatever this page says.",
  "answer.refer-caution": "Have it looked at: the answer comes with doubts.",
  "answer.refer-set": "Have it looked at: more than one class stays in question.",
  "answer.why": "Why",
  "answer.leak": "Beware",
  "answer.leak-because": "The model was trained on leaking data; its figures are too good. Accepted because: {reason}",
  "answer.computed": "Show what was computed all the same (not an answer)",
  "answer.probabilities": "Probabilities",
  "answer.scores": "Scores",
  "answer.calibrated": "Calibrated.",
  "answer.not-calibrated": "Not calibrated.",
  "answer.in-set": "in the set",
  "answer.set-means": "Classes marked “in the set” stay possible; the set is made to hold the right one in a stated share of cases.",
  "answer.more-class": "{count} further classes",
  "answer.more-label": "{count} further labels",
  "answer.checks": "Checks",
  "answer.notes": "Notes",
  "answer.file": "File",
  "answer.model": "Model",
  "answer.when": "Answered",
  "answer.used": "About the person",
  "answer.used-none": "nothing given",
  "answer.unknown": "Taken as unknown: {names}.",
  "answer.print": "Print this case",
  "answer.next": "Another picture",
  "answer.back": "Back to the table",

  "label.above-one": "Above its threshold: {names}",
  "label.above-many": "Above their thresholds: {names}",
  "label.above-count": "{count} of {total} labels are above their thresholds",
  "label.perhaps": "Perhaps: {names}",
  "label.perhaps-count": "Perhaps {count} of {total} labels",
  "label.none": "No label reaches its threshold. This does not rule anything out.",
  "label.none-cell": "none above threshold",
  "label.seen": "{name}, {percent} (threshold {threshold})",
  "label.sure-calibrated": "Each label has its own probability. Of 100 images with a probability of 70 % for a label, about 70 have it, if they are like those it was calibrated on.",
  "label.sure-raw": "Each label has its own score. This model is not calibrated: take the scores for ranks, not for probabilities.",
  "label.mark-above": "above threshold",
  "label.mark-below": "below threshold",
  "label.threshold": "threshold {threshold}",
  "label.means": "Each label is answered separately, so the numbers need not sum to 100 %. The line on a bar is the threshold of that label. A label below its threshold is not ruled out.",

  "check.ok": "passes",
  "check.caution": "doubtful",
  "check.bad": "fails",
  "check.none": "not checked",
  "check.quality": "Quality",
  "check.modality": "Kind of picture",
  "check.ood": "Familiar",
  "check.ood-ok": "like the pictures that the model was trained on",
  "check.ood-bad": "unlike the pictures that the model was trained on",
  "check.ood-none": "this model cannot tell whether a picture is unlike its training pictures",
  "check.numbers": "{value}, limit {limit}",
  "check.score": "score {value}",
  "check.sharpness": "Sharpness",
  "check.contrast": "Contrast",
  "check.dark": "Share of black",
  "check.light": "Share of white",
  "check.size_px": "Size",

  "view.heading": "The picture",
  "view.alt": "Your picture, as the model saw it",
  "view.alt-map": "Heat map for {name}: where the score came from",
  "view.mode": "View",
  "view.over": "Heat map over it",
  "view.side": "Side by side",
  "view.plain": "Picture alone",
  "view.strength": "Strength of the heat map",
  "view.for": "Heat map for",
  "view.caption": "What raised the score of {name} ({method}). It shows where the model looked, not why a {subject} is what it is.",
  "view.signed": "Both signs are shown: what spoke for the class and what spoke against it.",
  "grade.better": "Such maps hold up on this model",
  "grade.better-means": "On this model such maps point to what decides better than a blob in the middle and a random map do. That was measured on {count} test {subjects}, and says nothing of whether the answer is right.",
  "grade.no-better": "Do not rely on this map",
  "grade.no-better-means": "On this model such maps point to what decides no better than {floors} does. That was measured on {count} test {subjects}.",
  "grade.not-graded": "Not judged: nobody knows how good this map is",
  "grade.not-graded-means": "Whether such maps point to what decides on this model has not been measured. Take it for a picture, not for a reason.",
  "grade.few": "There were too few test {subjects} ({count}) to tell whether such maps point to what decides on this model. Take it for a picture, not for a reason.",
  "grade.centre": "a blob in the middle",
  "grade.random": "a random map",
  "grade.or": "{one} or {other}",
  "grade.floors": "a map that looks at nothing",
  "grade.other-class": "It was measured for the class that the model finds most likely; this map is for another.",
  "grade.other-label": "It was measured for the label that the model finds most likely; this map is for another.",
  "grade.figures": "Faithfulness {faithfulness}; over a blob in the middle {centre}, over a random map {random}. In brackets the {level} interval over {subjects}.",
  "view.no-show": "This browser cannot show this kind of file.",

  "batch.heading": "{count} pictures",
  "batch.summary": "{answer} answered, {caution} with caution, {set} undecided, {refer} refused, {error} failed",
  "batch.caption": "Answers, one a picture. The buttons in the head sort.",
  "batch.number": "No.",
  "batch.picture": "Picture",
  "batch.file": "File",
  "batch.outcome": "Outcome",
  "batch.class": "Class",
  "batch.confidence": "Probability",
  "batch.class-label": "Labels above threshold",
  "batch.confidence-label": "Highest of them",
  "batch.ood": "OOD score",
  "batch.why": "Why",
  "batch.open": "Open picture {number}",
  "batch.csv": "Download as CSV",
  "batch.print": "Print the table",
  "batch.clear": "Clear",
  "batch.waiting": "waiting",
  "batch.failed": "Failed",
  "batch.stopped": "not asked",

  "model.heading": "The model",
  "model.none": "The server names no model.",
  "model.hash": "SHA-256",
  "model.recipe": "Recipe",
  "model.modality": "Kind of images",
  "model.input": "Input",
  "model.input-value": "{height} × {width} pixels",
  "model.metadata": "Further inputs",
  "model.metadata-none": "none, the picture alone",
  "model.calibrated": "Probabilities",
  "model.calibrated-yes": "calibrated",
  "model.calibrated-no": "not calibrated",
  "model.cam": "Heat maps",
  "model.cam-yes": "exact for this network ({cam})",
  "model.cam-no": "none",
  "model.licence": "Licence",
  "model.answers-class": "Classes",
  "model.answers-label": "Labels",
  "model.headline": "Measured",
  "model.interval": "{value} ({low} – {high})",
  "model.headline-note": "Set {set}: {images} images of {groups} {subjects} or patients; in brackets the {level} interval.",
  "model.reliability": "Can the probabilities be trusted?",
  "model.reliability-note-class": "Each point gathers test pictures that were answered with about the same probability. On the line, it was right as often as it said; below, it was too sure. Larger points stand for more pictures.",
  "model.reliability-note-label": "Each point gathers test images that were answered with about the same probability of this label. On the line, the label was present as often as the probability says; below, less often. Larger points stand for more images.",
  "model.reliability-of": "Label",
  "model.reliability-alt": "Reliability diagram: {points}",
  "model.reliability-point-class": "at {confidence} right in {accuracy} of {count}",
  "model.reliability-point-label": "at {confidence} present in {accuracy} of {count}",
  "model.reliability-x": "Probability that it gave",
  "model.reliability-y-class": "Share that was right",
  "model.reliability-y-label": "Share that had the label",
  "model.reliability-table": "The same as a table",
  "model.reliability-count": "Pictures",
  "model.reliability-none": "This artifact carries no reliability figures.",
  "model.card": "Model card",
  "model.card-none": "This artifact carries no model card.",
  "model.loading": "Loading …",

  "error.heading": "That did not work",
  "error.again": "Try again",
  "error.offline": "The server does not answer. Is it still running, and is the network up?",
  "error.late": "The server took too long and was not waited for. Try again, or with a smaller picture.",
  "error.400": "The server could not read the request.",
  "error.401": "This server wants a key, and none or a wrong one was given.",
  "error.403": "The server does not take requests from this page.",
  "error.404": "The server does not know this. Perhaps another model was loaded since: load this page anew.",
  "error.408": "The upload was too slow for this server. Try again, or with a smaller picture.",
  "error.413": "The picture is too large for this server. Make it smaller, or save it as JPEG.",
  "error.415": "This is no picture that can be read here. JPEG, PNG, WebP and BMP can.",
  "error.422": "The file or an entry cannot be used.",
  "error.429": "Too many requests. Wait a little and try again.",
  "error.503": "The server is busy. Try again in about {seconds} s.",
  "error.503-plain": "The server is busy. Try again in a moment.",
  "error.504": "The server could not answer in time. Try again in a moment.",
  "error.5xx": "Something broke on the server ({status}). It is not your picture’s fault; try again.",
  "error.other": "The server answered with {status}.",
  "error.garbled": "The server answered with something that this page does not understand.",
  "error.not-picture": "“{name}” is no picture, and was not sent. JPEG, PNG, WebP and BMP can be read.",
  "error.empty": "“{name}” is empty, and was not sent.",
  "error.skipped": "{count} files are no pictures, and were not sent.",
  "error.too-many": "At most {limit} pictures at once; take the command line for more (dermalyze predict).",
  "error.folder": "A folder cannot be read here. Open it, and drop the pictures that are in it.",
  "error.nothing": "There was no picture in that. Drop or paste an image file.",
  "error.key": "Key of this server",
  "error.key-use": "Use this key",
};

let shown = {};

/** Take the words for what the images of a model show, as /v1/models gives them. */
export function useWords(words) {
  const { subject = "case", subjects = "cases" } = words ?? {};
  shown = { subject, subjects };
}
useWords(null);

/** The words of a key, with {names} filled in. An unknown key is shown as itself, so that it is seen. */
export function t(key, values = {}) {
  const words = TEXTS[key] ?? key;
  const known = { ...shown, ...values };
  return words.replace(/\{([\w-]+)\}/g, (whole, name) => (name in known ? String(known[name]) : whole));
}

/** The words of a key, or what is given instead where there is none. */
export function tOr(key, otherwise) {
  return Object.hasOwn(TEXTS, key) ? TEXTS[key] : otherwise;
}

const whole = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const four = new Intl.NumberFormat(LANGUAGE, { maximumSignificantDigits: 4 });

/** A probability in words: never a round 0 % or 100 % for what is neither. */
export function percent(share, fine = false) {
  if (typeof share !== "number" || !Number.isFinite(share)) return "–";
  const format = fine ? tenth : whole;
  const least = fine ? 0.1 : 1;
  if (share > 0 && share * 100 < least / 2) return `< ${format.format(least)} %`;
  if (share < 1 && share * 100 > 100 - least / 2) return `> ${format.format(100 - least)} %`;
  return `${format.format(share * 100)} %`;
}

const thousandth = new Intl.NumberFormat(LANGUAGE, { maximumFractionDigits: 3, minimumFractionDigits: 3 });

/** A figure of a report, with three digits after the point. */
export const third = (value) => thousandth.format(value);

/** Any other number, with four significant digits. */
export function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? four.format(value) : value == null ? "–" : String(value);
}
