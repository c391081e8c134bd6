// Every word of the page, in one place. To translate: change LANGUAGE and the right-hand sides; {names} stay as they are.
// What the server says itself (reasons, notes, descriptions of classes) is shown as it comes.

export const LANGUAGE = "en-GB";

const TEXTS = {
  "page.title": "dermalyze",
  "page.skip": "Skip to the content",
  "page.nav": "Pages",
  "page.disclaimer": "Research and education. Not a medical device, not a diagnosis.",
  "nav.picture": "Image",
  "nav.model": "The model",

  "ask.heading": "What does the model see?",
  "ask.lead": "One image gives an answer with its reasons, or a refusal. Several give a table.",
  "ask.drop": "Drop images here, paste one, or",
  "ask.choose": "Choose images",
  "ask.photo": "Take a photo",
  "ask.stop": "Stop",
  "ask.privacy": "Images go to this server alone, which stores none. File names stay in this browser.",
  "ask.model": "Model",
  "ask.images": "A further image",
  "ask.images-hint": "This model also uses a second image of the same {subject}. Choose it first, then the first image; it holds for one sample.",
  "ask.one-sample": "The second image was left out: it belongs to one sample, and several were chosen.",
  "field.image_2": "Second image",
  "ask.metadata": "About the person",
  "ask.metadata-hint": "This model uses these. Leave empty what you do not know; for several images they hold for all.",
  "ask.explain": "Draw a heat map",
  "ask.explain-weak": "Draw a heat map (do not rely on it: on this model such maps failed their test)",
  "start.heading": "Which model answers",
  "start.classes": "{name} takes images of kind {kind} and tells apart: {classes}.",
  "start.labels": "{name} takes images of kind {kind} and looks for: {classes}.",
  "start.measured": "On {images} test images of {groups} {subjects} or patients, with the {level} interval:",
  "start.point": "{title}: sensitivity {sensitivity}, specificity {specificity}, at the threshold of {threshold}",
  "start.unmeasured": "How good it is was not measured, or the measurement is not stored in the model.",
  "start.more": "Metrics, calibration and model card",
  "start.examples": "No image to try? These are synthetic:",
  "start.example": "Synthetic example {number}",
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

  "status.asking": "The model is at work.",
  "status.asking-many": "{done} of {total} images answered",
  "status.waiting": "{done} of {total} images answered; the server is busy, next try in {seconds} s",
  "status.done-many": "Done. {summary}.",
  "status.stopped": "Stopped. {summary}.",
  "status.sorted": "Sorted by {column}, {direction}.",
  "status.ascending": "ascending",
  "status.descending": "descending",

  "answer.answer": "Most likely: {name}",
  "answer.caution": "Perhaps: {name}",
  "answer.set": "Undecided between {count} classes",
  "answer.set-none": "Undecided",
  "answer.refer": "No answer: a person should look at this",
  "answer.refer-lead": "The model declines. Nothing below is an answer about this image.",
  "answer.examine": "Have it looked at: {found}",
  "answer.tag-answer": "Answered",
  "answer.tag-examine": "Have it looked at",
  "answer.tag-caution": "With caution",
  "answer.tag-set": "Several possible",
  "answer.tag-refer": "Refused",
  "answer.saw": "Most likely",
  "answer.saw-set": "In question",
  "answer.sure": "Confidence",
  "answer.sure-calibrated": "{percent}. Of 100 such answers about {count} are right, on images like those it was calibrated on.",
  "answer.sure-raw": "Score {percent}. This model is not calibrated: take it as a rank, not as a probability.",
  "answer.sure-set": "Not enough for one class: the most probable has {percent}.",
  "answer.what-to-do": "What to do",
  "answer.do-answer": "This answer rules nothing out. See a doctor about anything that worries you, whatever this page says.",
  "answer.do-caution": "Have it looked at: the answer comes with doubts. It rules nothing out.",
  "answer.do-set": "Have it looked at: more than one class stays in question.",
  "answer.do-examine": "Have it looked at, whichever class is the most likely.",
  "answer.points": "Thresholds",
  "point.share": "{title}: {percent}.",
  "point.above": "At or above the threshold of {threshold}, chosen for a sensitivity of {target}.",
  "point.below": "Below the threshold of {threshold}, chosen for a sensitivity of {target}. This does not rule it out.",
  "point.none": "No threshold: {note}.",
  "point.measured": "Measured on the test split: sensitivity {sensitivity}, specificity {specificity}.",
  "point.not-measured": "Sensitivity and specificity were not measured.",
  "point.interval": "{value} ({low} – {high})",
  "answer.why": "Why",
  "answer.leak": "Beware",
  "answer.leak-because": "The model was trained on leaking data; its figures are too good. Accepted because: {reason}",
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
  "answer.next": "Another image",
  "answer.back": "Back to the table",

  "label.saw": "Above threshold",
  "label.above-one": "Above its threshold: {names}",
  "label.above-many": "Above their thresholds: {names}",
  "label.above-count": "{count} of {total} labels are above their thresholds",
  "label.perhaps": "Perhaps: {names}",
  "label.perhaps-count": "Perhaps {count} of {total} labels",
  "label.none": "No label reaches its threshold. This does not rule anything out.",
  "label.none-cell": "none above threshold",
  "label.seen": "{name}, {percent} (threshold {threshold})",
  "label.sure-calibrated": "Each label has its own probability. Of 100 images with a probability of 70 % for a label, about 70 have it, if they are like those it was calibrated on.",
  "label.sure-raw": "Each label has its own score. This model is not calibrated: take the scores as ranks, not as probabilities.",
  "label.mark-above": "above threshold",
  "label.mark-below": "below threshold",
  "label.threshold": "threshold {threshold}",
  "label.means": "Each label is answered separately, so the numbers need not sum to 100 %. The line on a bar is the threshold of that label. A label below its threshold is not ruled out.",

  "check.ok": "passes",
  "check.caution": "doubtful",
  "check.bad": "fails",
  "check.none": "not checked",
  "check.quality": "Quality",
  "check.modality": "Kind of image",
  "check.ood": "Like the training images",
  "check.ood-ok": "",
  "check.ood-bad": "unlike the images that the model was trained on",
  "check.ood-none": "this model cannot tell whether an image is unlike its training images",
  "check.numbers": "{value}, limit {limit}",
  "check.score": "score {value}",
  "check.sharpness": "Sharpness",
  "check.contrast": "Contrast",
  "check.dark": "Share of black",
  "check.light": "Share of white",
  "check.size_px": "Size",

  "view.heading": "The image",
  "view.alt": "Your image, as the model saw it",
  "view.alt-map": "Heat map for {name}: where the score came from",
  "view.mode": "View",
  "view.over": "Heat map over it",
  "view.side": "Side by side",
  "view.plain": "Image alone",
  "view.strength": "Strength of the heat map",
  "view.for": "Heat map for",
  "view.caption": "What raised the score of {name} ({method}). It shows where the model looked, not why a {subject} is what it is.",
  "view.signed": "Both signs are shown: what spoke for the class and what spoke against it.",
  "grade.better": "Such maps hold up on this model",
  "grade.better-means": "On this model such maps point to what decides better than a blob in the center and a random map do. This was measured on {count} test {subjects}; it does not tell whether the answer is right.",
  "grade.no-better": "Do not rely on this map",
  "grade.no-better-means": "On this model such maps point to what decides no better than {floors} does. This was measured on {count} test {subjects}.",
  "grade.not-graded": "Not graded: how good this map is was not measured",
  "grade.not-graded-means": "Whether such maps point to what decides on this model has not been measured. Do not take it as a reason.",
  "grade.few": "There were too few test {subjects} ({count}) to tell whether such maps point to what decides on this model. Do not take it as a reason.",
  "grade.center": "a blob in the center",
  "grade.random": "a random map",
  "grade.or": "{one} or {other}",
  "grade.floors": "a map that looks at nothing",
  "grade.other-class": "It was measured for the class that the model finds most likely; this map is for another.",
  "grade.other-label": "It was measured for the label that the model finds most likely; this map is for another.",
  "grade.figures": "Faithfulness {faithfulness}; over a blob in the center {center}, over a random map {random}. In brackets the {level} interval over {subjects}.",
  "view.no-show": "This browser cannot show this kind of file.",

  "batch.heading": "{count} images",
  "batch.summary": "{examine} to be looked at, {answer} answered, {caution} with caution, {set} undecided, {refer} refused, {error} failed",
  "batch.caption": "Answers, one per image. The buttons in the head sort.",
  "batch.number": "No.",
  "batch.picture": "Image",
  "batch.file": "File",
  "batch.outcome": "Outcome",
  "batch.class": "Class",
  "batch.confidence": "Probability",
  "batch.class-label": "Labels above threshold",
  "batch.confidence-label": "Highest of them",
  "batch.ood": "OOD score",
  "batch.why": "Why",
  "batch.open": "Open image {number}",
  "batch.csv": "Download as CSV",
  "batch.print": "Print the table",
  "batch.clear": "Clear",
  "batch.flagged": "{title} {percent}",
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
  "model.metadata-none": "none, the image alone",
  "model.calibrated": "Probabilities",
  "model.calibrated-yes": "calibrated",
  "model.calibrated-no": "not calibrated",
  "model.cam": "Heat maps",
  "model.cam-yes": "exact for this network ({cam})",
  "model.cam-no": "none",
  "model.cam-weak": "{cam}; do not rely on them: on this model they failed their test",
  "model.license": "License",
  "model.answers-class": "Classes",
  "model.answers-label": "Labels",
  "model.headline": "Measured",
  "model.interval": "{value} ({low} – {high})",
  "model.headline-note": "Set {set}: {images} images of {groups} {subjects} or patients; in brackets the {level} interval.",
  "model.reliability": "Calibration",
  "model.reliability-note-class": "Each point gathers test images with about the same predicted probability. On the line, the model was right as often as predicted; below, it was too confident. Larger points stand for more images.",
  "model.reliability-note-label": "Each point gathers test images with about the same predicted probability of this label. On the line, the label was present as often as the probability says; below, less often. Larger points stand for more images.",
  "model.reliability-of": "Label",
  "model.reliability-alt": "Reliability diagram: {points}",
  "model.reliability-point-class": "at {confidence} right in {accuracy} of {count}",
  "model.reliability-point-label": "at {confidence} present in {accuracy} of {count}",
  "model.reliability-x": "Predicted probability",
  "model.reliability-y-class": "Share that was right",
  "model.reliability-y-label": "Share that had the label",
  "model.reliability-table": "The same as a table",
  "model.reliability-count": "Images",
  "model.reliability-none": "This artifact carries no reliability figures.",
  "model.card": "Model card",
  "model.card-none": "This artifact carries no model card.",
  "model.loading": "Loading …",

  "error.heading": "That did not work",
  "error.again": "Try again",
  "error.offline": "The server does not answer. Is it still running, and is the network up?",
  "error.late": "The server took too long. Try again, or with a smaller image.",
  "error.400": "The server could not read the request.",
  "error.401": "This server wants a key, and none or a wrong one was given.",
  "error.403": "The server does not take requests from this page.",
  "error.404": "The server does not know this. Perhaps another model was loaded since: load this page anew.",
  "error.408": "The upload was too slow for this server. Try again, or with a smaller image.",
  "error.413": "The image is too large for this server. Make it smaller, or save it as JPEG.",
  "error.415": "This is not an image that can be read here. JPEG, PNG, WebP, AVIF and BMP can.",
  "error.422": "The file or an entry cannot be used.",
  "error.429": "Too many requests. Wait a little and try again.",
  "error.503": "The server is busy. Try again in about {seconds} s.",
  "error.503-plain": "The server is busy. Try again in a moment.",
  "error.504": "The server could not answer in time. Try again in a moment.",
  "error.5xx": "Something broke on the server ({status}). Your image is not the reason; try again.",
  "error.other": "The server answered with {status}.",
  "error.garbled": "The server answered with something that this page does not understand.",
  "error.not-picture": "“{name}” is not an image, and was not sent. JPEG, PNG, WebP, AVIF and BMP can be read.",
  "error.empty": "“{name}” is empty, and was not sent.",
  "error.skipped": "{count} files are not images, and were not sent.",
  "error.too-many": "At most {limit} images at once; take the command line for more (dermalyze predict).",
  "error.folder": "A folder cannot be read here. Open it, and drop the images that are in it.",
  "error.nothing": "There was no image in that. Drop or paste an image file.",
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
