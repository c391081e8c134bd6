"""Which labels are likely errors: out-of-fold probabilities of a linear model on each image's features."""

# Shapes: B images of a batch, H height, W width, N images, D features.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.audit.checks import EXAMPLES, Finding
from dermalyze.audit.confident_learning import LabelIssues, find_issues, noise_share
from dermalyze.audit.out_of_fold import FOLDS, OutOfFold, enough_groups, out_of_fold
from dermalyze.data.grouping import keys
from dermalyze.errors import DataError
from dermalyze.imaging.color_texture import describe
from dermalyze.imaging.decode import Preprocessing, to_size
from dermalyze.metrics.bootstrap import Estimate, Weighable, estimates, mean_of
from dermalyze.metrics.calibration_error import ECE_BINS
from dermalyze.metrics.classification import Scores, Tally, accuracy, macro_auroc, recall
from dermalyze.metrics.ranking import Floats
from dermalyze.tasks.base import TASKS, Task
from dermalyze.tasks.choices import ABSENT_PRESENT

SMALL = Preprocessing("squash", 72, 96, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""The size at which colors and textures are described."""
STRONG = 0.05
"""A likely error whose label is given less than this is counted as strong. Where 5 % of HAM10000's groups were put under
another label, 62 % of the strong ones were such, and 21 % of all likely errors (tests/real/test_label_audit_real.py)."""
RESAMPLES, LEVEL, SEED = 500, 0.95, 0


@dataclass(frozen=True)
class LikelyError:
    """One label, or one entry of an image and a label, that the images of its class contradict.

    Attributes:
        image_id: the user's key.
        lesion_id: its own, None where the set names none.
        label: as given; of several labels per image `absent` or `present`.
        suggested: the class that the image counts as, or the other of the two.
        score: held-out probability of the given label, 0..1: the lower the more suspicious.
        suggested_score: held-out probability of the suggested one.
        about: the label whose entry it is; None where each image has one class.
    """

    image_id: str
    lesion_id: str | None
    label: str
    suggested: str
    score: float
    suggested_score: float
    about: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, scores to 4 digits; `about` only of several labels per image."""
        values = {**asdict(self), "score": round(self.score, 4), "suggested_score": round(self.suggested_score, 4)}
        about = values.pop("about")
        return values if about is None else {"about": about, **values}


@dataclass(frozen=True, eq=False)
class Question:
    """What is checked at once: the class of each image, or whether it has one label.

    Attributes:
        about: the label; None where it is the class.
        rows: of the frame, by position; those of which the target is there and can be checked.
        frame: these rows, `label` being the class, or absent or present.
        left_out: images of each class, or of the label, with too few groups to check.
    """

    about: str | None
    rows: NDArray[np.int64]
    frame: pd.DataFrame
    left_out: dict[str, int]


@dataclass(frozen=True)
class LabelAudit:
    """What the labels look like to a model that has seen neither the image nor its group.

    Attributes:
        features: what the model saw.
        images, groups: that were evaluated.
        left_out: images of each class or label with too few groups to check.
        strength: inverse regularization of the logistic regression; None of several labels, see `by_label`.
        overall: the task's `brief` metrics, with intervals over groups.
        noise_share: share of wrong labels by the confident joint; the model's own errors count in, so an upper bound.
        by_dx_type: the same by how the diagnosis was found, see `by_column`; empty without that column.
        lesions: of those with a name: `judged`, `with_likely_error`, `several_images` (with more than one image) and
            `several_images_all_likely_errors`.
        errors: likely errors, the worst first.
        entries: targets that were checked; of several labels per image each image and label, where it is known.
        by_label: of several labels per image, one row each.
    """

    features: str
    images: int
    groups: int
    left_out: dict[str, int]
    strength: float | None
    overall: dict[str, Estimate]
    noise_share: float
    by_dx_type: tuple[dict[str, Any], ...]
    lesions: dict[str, int]
    errors: tuple[LikelyError, ...]
    entries: int
    by_label: tuple[dict[str, Any], ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values; scores to 4 digits."""
        return {
            **{name: getattr(self, name) for name in ("features", "images", "groups", "left_out", "strength", "lesions")},
            "folds": FOLDS,
            "interval_level": LEVEL,
            **{name: found.as_dict() for name, found in self.overall.items()},
            "noise_share": round(self.noise_share, 4),
            "by_dx_type": list(self.by_dx_type),
            "strong": self.strong,
            "errors": [error.as_dict() for error in self.errors],
            **({"entries": self.entries, "by_label": list(self.by_label)} if self.by_label else {}),
        }

    @property
    def strong(self) -> int:
        """How many likely errors have a score below `STRONG`; they stand first."""
        return sum(error.score < STRONG for error in self.errors)

    def findings(self) -> list[Finding]:
        """One finding where there are likely errors: to be looked at where some are strong, else a note."""
        if not self.errors:
            return []
        if self.by_label:
            how = f"a model with a macro AUROC of {self.overall['macro_auroc'].value:.2f} on unseen groups contradicts them"
        else:
            right = self.overall["accuracy"].value
            how = f"a model that is right on {right:.0%} of unseen groups takes them for another class"
        detail = (
            f"{len(self.errors)} of {self.entries} labels are likely errors or hard to see, {self.strong} of them strongly: "
            f"{how}; look at the first ones"
        )
        ids = tuple(error.image_id for error in self.errors[:EXAMPLES])
        return [Finding("label_error", "warn" if self.strong else "info", len(self.errors), detail, ids)]

    def lines(self) -> list[str]:
        """Lines for a person: how well the model agrees with the labels, overall and by dx_type."""
        names = {name: name.removesuffix("_accuracy").replace("_", " ").replace("auroc", "AUROC") for name in self.overall}
        score = ", ".join(f"{names[name]} {_text(found)}" for name, found in self.overall.items())
        lines = [f"labels evaluated on {self.images} images by {self.features}: {score}"]
        for row in self.by_label:
            lines.append(
                f"{row['label']}: {row['images']} images, {row['present']} with it, AUROC {_text(Estimate(**row['auroc']))}, "
                f"{row['likely_errors']} likely errors"
            )
        lines += [f"not evaluated, fewer than {FOLDS} groups: {name} ({n} images)" for name, n in self.left_out.items()]
        for row in self.by_dx_type:
            lines.append(
                f"dx_type {row['value']}: {row['images']} images, accuracy {_text(Estimate(**row['accuracy']))} "
                f"({row['expected_accuracy']:.3f} for this mix of classes), {row['likely_errors']} likely errors"
            )
        return lines


def color_texture_features(images_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B, 151) colors and textures of images of any size, see `dermalyze.imaging.color_texture.describe`."""
    return np.stack([describe(to_size(image, SMALL)) for image in images_BHW3]).astype(np.float32)


def audit_labels(
    frame: pd.DataFrame,
    features_ND: NDArray[np.float32],
    features: str,
    *,
    task: Task = TASKS["multiclass"],
    advance: Callable[[int], None] = lambda fits: None,
) -> LabelAudit:
    """Check every label by confident learning on held-out probabilities; of several labels per image each by itself.

    A target that is missing is neither learned from nor checked.

    Args:
        frame: N rows with `image_id`, `label`, `group`, and `lesion_id` and `dx_type` where there are some.
        features_ND: of each image.
        features: what they are, for a person.
        task: what the labels are.
        advance: is told of each fit.

    Raises:
        DataError: fewer than two classes with enough groups; no label that enough groups have and lack.
    """
    asked = require_questions(frame, task)
    questions = [question for question in asked if len(question.rows)]
    held_out = [out_of_fold(question.frame, features_ND[question.rows], advance=advance) for question in questions]
    issues = [find_issues(one.scores) for one in held_out]
    shares = [noise_share(issue.joint, one.scores.support) for issue, one in zip(issues, held_out, strict=True)]
    images = np.unique(np.concatenate([question.rows for question in questions]))
    rows = frame.iloc[images].reset_index(drop=True)
    group = rows["group"].astype(str).tolist()
    flagged = np.isin(images, np.concatenate([q.rows[issue.rows] for q, issue in zip(questions, issues, strict=True)]))
    errors = [error for checked in zip(questions, held_out, issues, strict=True) for error in likely_errors(*checked)]
    metrics = task.overall_metrics(ECE_BINS)
    overall = estimates(
        all_scores(questions, held_out, images, task),
        group,
        {name: metrics[name] for name in task.brief},
        resamples=RESAMPLES,
        level=LEVEL,
        seed=SEED,
    )
    weights = [len(question.rows) for question in questions]
    of_class = questions[0].about is None
    first = questions[0].frame
    return LabelAudit(
        features=features,
        images=len(images),
        groups=len(set(group)),
        left_out={name: n for question in asked for name, n in question.left_out.items()},
        strength=held_out[0].strength if of_class else None,
        overall={name: found for name, found in overall.items() if isinstance(found, Estimate)},
        noise_share=float(np.average(shares, weights=weights)),
        by_dx_type=tuple(by_column(first, "dx_type", held_out[0].scores, issues[0])) if of_class and "dx_type" in rows else (),
        lesions=lesion_counts(rows, flagged),
        errors=tuple(sorted(errors, key=lambda error: error.score)),
        entries=sum(weights),
        by_label=() if of_class else tuple(map(label_row, questions, held_out, issues, shares)),
    )


def questions_of(frame: pd.DataFrame, task: Task) -> list[Question]:
    """What is asked of each image, with the rows that can be checked; none where too few groups tell."""
    texts = frame["label"].astype(str).tolist()
    classes = task.names(texts)
    made = []
    for choice in task.questions(task.targets(texts, classes), len(classes)):
        about = None if choice.label is None else classes[choice.label]
        there = np.flatnonzero(choice.targets >= 0)
        names = np.array(classes if about is None else ABSENT_PRESENT, dtype=object)
        part = frame.iloc[there].assign(label=names[choice.targets[there]]).reset_index(drop=True)
        inside = enough_groups(part)
        left = part.loc[~inside, "label"].value_counts().sort_index()
        left_out = {str(name): int(n) for name, n in left.items()}
        if about is not None:
            left_out = {about: sum(left_out.values())} if left_out else {}
        made.append(Question(about, there[inside.to_numpy()], part[inside].reset_index(drop=True), left_out))
    return made


def require_questions(frame: pd.DataFrame, task: Task) -> list[Question]:
    """See `questions_of`.

    Raises:
        DataError: nothing can be checked.
    """
    questions = questions_of(frame, task)
    if not any(len(question.rows) for question in questions):
        if len(questions) == 1:
            why = f"fewer than 2 classes are in {FOLDS} groups or more"
        else:
            why = f"no label is both present and absent in {FOLDS} groups or more"
        raise DataError(f"audit --labels: {why}, so no label can be evaluated; add images, or audit without --labels")
    return questions


def all_scores(
    questions: Sequence[Question], held_out: Sequence[OutOfFold], images: NDArray[np.int64], task: Task
) -> Weighable[Any]:
    """All that was checked as scores of the images; the rest is missing there."""
    targets, probs = [], []
    for question, one in zip(questions, held_out, strict=True):
        at = np.searchsorted(images, question.rows)
        known, options = np.full(len(images), -1), len(one.classes)
        shares = np.full((len(images), options), 1 / options)
        known[at], shares[at] = one.scores.labels, one.scores.probs
        targets.append(known)
        probs.append(shares)
    return task.scores(task.joined_targets(targets), task.joined(probs))


def likely_errors(question: Question, held_out: OutOfFold, issues: LabelIssues) -> list[LikelyError]:
    """The likely errors, worst first."""
    rows = question.frame
    named = [name if isinstance(name, str) else None for name in keys(rows, "lesion_id")]  # NaN where none has a name
    probs = held_out.scores.probs
    found = []
    for i in issues.rows:
        label, suggested = held_out.scores.labels[i], issues.counts_as[i]
        names = (held_out.classes[label], held_out.classes[suggested])
        values = (float(probs[i, label]), float(probs[i, suggested]))
        found.append(LikelyError(str(rows["image_id"][i]), named[i], *names, *values, question.about))
    return found


def label_row(question: Question, held_out: OutOfFold, issues: LabelIssues, share: float) -> dict[str, Any]:
    """What was found of one label, JSON-ready."""
    scores = held_out.scores
    group = question.frame["group"].astype(str).tolist()
    found = estimates(scores, group, {"auroc": macro_auroc}, resamples=RESAMPLES, level=LEVEL, seed=SEED)["auroc"]
    assert isinstance(found, Estimate)
    return {
        "label": question.about,
        "images": len(question.rows),
        "present": int(scores.support[held_out.classes.index("present")]),
        "strength": held_out.strength,
        "auroc": found.as_dict(),
        "noise_share": round(share, 4),
        "likely_errors": len(issues.rows),
    }


def lesion_counts(rows: pd.DataFrame, flagged_N: NDArray[np.bool_]) -> dict[str, int]:
    """How many lesions are concerned; empty where none has a name."""
    known = keys(rows, "lesion_id")
    if known.isna().all():
        return {}
    table = pd.Series(flagged_N).groupby(known).agg(["size", "sum"])
    several = table[table["size"] > 1]
    return {
        "judged": len(table),
        "with_likely_error": int((table["sum"] > 0).sum()),
        "several_images": len(several),
        "several_images_all_likely_errors": int((several["size"] == several["sum"]).sum()),
    }


def by_column(rows: pd.DataFrame, column: str, scores: Scores, issues: LabelIssues) -> list[dict[str, Any]]:
    """Agreement of model and labels for each value of a column, with intervals over groups.

    `accuracy`; `expected_accuracy`: what the whole set's accuracy in each class gives for this value's mix of classes (a value
    that holds only an easy class is accurate for that reason alone); `balanced_accuracy`: over the classes that it holds;
    `likely_errors` and their share.
    """
    flagged = np.isin(np.arange(len(rows)), issues.rows).astype(np.float64)
    right_C = recall(Tally(scores, np.ones((len(rows), 1))))[0]
    values = keys(rows, column)
    table = []
    for value in sorted(set(values.dropna())):
        here = (values == value).to_numpy()
        part = Scores(scores.labels[here], scores.probs[here])
        found = estimates(
            part,
            rows.loc[here, "group"].astype(str).tolist(),
            {"accuracy": accuracy, "balanced_accuracy": _present_recall(part), "likely_error_share": mean_of(flagged[here])},
            resamples=RESAMPLES,
            level=LEVEL,
            seed=SEED,
        )
        table.append(
            {
                "value": str(value),
                "images": int(here.sum()),
                "groups": int(rows.loc[here, "group"].nunique()),
                "classes": int((part.support > 0).sum()),
                "expected_accuracy": float(right_C[part.labels].mean()),
                "likely_errors": int(flagged[here].sum()),
                **{name: one.as_dict() for name, one in found.items() if isinstance(one, Estimate)},
            }
        )
    return table


def _present_recall(scores: Scores) -> Callable[[Tally], Floats]:
    present = scores.support > 0
    return lambda t: np.asarray(recall(t)[:, present].mean(axis=1))


def _text(found: Estimate) -> str:
    if found.value is None:
        return found.note
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.value:.3f}{interval}"
