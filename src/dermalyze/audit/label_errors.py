"""Which labels are likely errors: out-of-fold probabilities of a linear model on each picture's features."""

# Shapes: B images of a batch, H height, W width, N images, D features.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermalyze.audit.checks import EXAMPLES, Finding
from dermalyze.audit.confident_learning import LabelIssues, find_issues, noise_share
from dermalyze.audit.out_of_fold import FOLDS, OutOfFold, judged, out_of_fold
from dermalyze.data.grouping import keys
from dermalyze.data.thumbnails import Gallery, Picture
from dermalyze.errors import DataError
from dermalyze.imaging.color_texture import describe
from dermalyze.imaging.decode import Preprocessing, to_size
from dermalyze.metrics.bootstrap import Estimate, estimates, mean_of
from dermalyze.metrics.classification import Scores, Tally, accuracy, balanced_accuracy, macro_auroc, recall
from dermalyze.metrics.ranking import Floats

SMALL = Preprocessing("squash", 72, 96, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""The size at which colours and textures are described."""
STRONG = 0.05
"""A likely error whose label is given less than this is counted as strong. Where 5 % of HAM10000's lesions were put under
another label, 62 % of the strong ones were such, and 21 % of all likely errors (tests/real/test_label_audit_real.py)."""
RESAMPLES, LEVEL, SEED = 500, 0.95, 0


@dataclass(frozen=True)
class LikelyError:
    """One label that the pictures of its class contradict.

    Attributes:
        image_id: the user's key.
        lesion_id: of its lesion, None where the set names none.
        label: as given.
        suggested: the class that the picture counts as.
        score: held-out probability of the given label, 0..1: the lower the more suspicious.
        suggested_score: held-out probability of the suggested one.
    """

    image_id: str
    lesion_id: str | None
    label: str
    suggested: str
    score: float
    suggested_score: float


@dataclass(frozen=True)
class LabelAudit:
    """What the labels look like to a model that has seen neither the image nor its group.

    Attributes:
        features: what the model saw.
        images, groups: that were judged.
        left_out: images of each class with too few groups to judge.
        strength: inverse regularisation of the logistic regression.
        overall: accuracy, balanced_accuracy and macro_auroc, with intervals over groups.
        noise_share: share of wrong labels by the confident joint; the model's own errors count in, so an upper bound.
        by_dx_type: the same by how the diagnosis was found, see `by_column`; empty without that column.
        lesions: of those with a name: `judged`, `with_likely_error`, `several_images` (with more than one picture) and
            `several_images_all_likely_errors`.
        errors: likely errors, the worst first.
    """

    features: str
    images: int
    groups: int
    left_out: dict[str, int]
    strength: float
    overall: dict[str, Estimate]
    noise_share: float
    by_dx_type: tuple[dict[str, Any], ...]
    lesions: dict[str, int]
    errors: tuple[LikelyError, ...]

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
            "errors": [
                {**asdict(error), "score": round(error.score, 4), "suggested_score": round(error.suggested_score, 4)}
                for error in self.errors
            ],
        }

    @property
    def strong(self) -> int:
        """How many likely errors have a score below `STRONG`; they stand first."""
        return sum(error.score < STRONG for error in self.errors)

    def findings(self) -> list[Finding]:
        """One finding where there are likely errors: to be looked at where some are strong, else a note."""
        if not self.errors:
            return []
        detail = (
            f"{len(self.errors)} of {self.images} labels are likely errors or hard to see, {self.strong} of them strongly: a "
            f"model that is right on {self.overall['accuracy'].value:.0%} of unseen groups takes them for another class; look "
            "at the first ones"
        )
        ids = tuple(error.image_id for error in self.errors[:EXAMPLES])
        return [Finding("label_error", "warn" if self.strong else "info", len(self.errors), detail, ids)]

    def lines(self) -> list[str]:
        """Lines for a person: how well the model agrees with the labels, overall and by dx_type."""
        score = self.overall
        lines = [
            f"labels judged on {self.images} images by {self.features}: accuracy {_text(score['accuracy'])}, balanced "
            f"{_text(score['balanced_accuracy'])}, macro AUROC {_text(score['macro_auroc'])}"
        ]
        lines += [f"not judged, fewer than {FOLDS} groups: {name} ({n} images)" for name, n in self.left_out.items()]
        for row in self.by_dx_type:
            lines.append(
                f"dx_type {row['value']}: {row['images']} images, accuracy {_text(Estimate(**row['accuracy']))} "
                f"({row['expected_accuracy']:.3f} for this mix of classes), {row['likely_errors']} likely errors"
            )
        return lines


def picture_statistics(images_BHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B, 151) colours and textures of pictures of any size, see `dermalyze.imaging.color_texture.describe`."""
    return np.stack([describe(to_size(image, SMALL)) for image in images_BHW3]).astype(np.float32)


def audit_labels(
    frame: pd.DataFrame,
    features_ND: NDArray[np.float32],
    features: str,
    *,
    advance: Callable[[int], None] = lambda fits: None,
) -> LabelAudit:
    """Judge every label by confident learning on held-out probabilities.

    Args:
        frame: N rows with `image_id`, `label`, `group`, and `lesion_id` and `dx_type` where there are some.
        features_ND: of each picture.
        features: what they are, for a person.
        advance: is told of each fit.

    Raises:
        DataError: fewer than two classes with enough groups.
    """
    inside = require_judged(frame)
    left_out = frame.loc[~inside, "label"].value_counts().sort_index()
    rows = frame[inside].reset_index(drop=True)
    held_out = out_of_fold(rows, features_ND[inside.to_numpy()], advance=advance)
    issues = find_issues(held_out.scores)
    group = rows["group"].astype(str).tolist()
    metrics = {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy, "macro_auroc": macro_auroc}
    overall = estimates(held_out.scores, group, metrics, resamples=RESAMPLES, level=LEVEL, seed=SEED)
    return LabelAudit(
        features=features,
        images=len(rows),
        groups=len(set(group)),
        left_out={str(name): int(n) for name, n in left_out.items()},
        strength=held_out.strength,
        overall={name: found for name, found in overall.items() if isinstance(found, Estimate)},
        noise_share=noise_share(issues.joint, held_out.scores.support),
        by_dx_type=tuple(by_column(rows, "dx_type", held_out.scores, issues)) if "dx_type" in rows else (),
        lesions=lesion_counts(rows, issues),
        errors=tuple(likely_errors(rows, held_out, issues)),
    )


def require_judged(frame: pd.DataFrame) -> pd.Series:
    """Which rows can be judged, see `judged`.

    Raises:
        DataError: none.
    """
    inside = judged(frame)
    if not inside.any():
        raise DataError(
            f"audit --labels: fewer than 2 classes stand in {FOLDS} groups or more, so no label can be judged; "
            "add images, or audit without --labels"
        )
    return inside


def likely_errors(rows: pd.DataFrame, held_out: OutOfFold, issues: LabelIssues) -> list[LikelyError]:
    """The likely errors, worst first."""
    lesion, probs = keys(rows, "lesion_id").tolist(), held_out.scores.probs
    found = []
    for i in issues.rows:
        label, suggested = held_out.scores.labels[i], issues.counts_as[i]
        names = (held_out.classes[label], held_out.classes[suggested])
        found.append(
            LikelyError(str(rows["image_id"][i]), lesion[i], *names, float(probs[i, label]), float(probs[i, suggested]))
        )
    return found


def lesion_counts(rows: pd.DataFrame, issues: LabelIssues) -> dict[str, int]:
    """How many lesions are concerned; empty where none has a name."""
    lesion = keys(rows, "lesion_id")
    if lesion.isna().all():
        return {}
    flagged = pd.Series(np.isin(np.arange(len(rows)), issues.rows))
    table = flagged.groupby(lesion).agg(["size", "sum"])
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


def label_galleries(errors: Sequence[LikelyError], *, limit: int = 40, columns: int = 8) -> list[Gallery]:
    """The worst likely errors as pictures, row by row; none where there are none.

    Args:
        errors: worst first.
        limit: pictures at most.
        columns: pictures a row.

    >>> label_galleries([LikelyError("a", None, "nv", "mel", 0.01, 0.9)])[0].rows[0][0].caption
    'nv? looks like mel (0.01 : 0.90)'
    """
    pictures = [
        Picture(e.image_id, f"{e.label}? looks like {e.suggested} ({e.score:.2f} : {e.suggested_score:.2f})")
        for e in errors[:limit]
    ]
    if not pictures:
        return []
    explanation = (
        "Under each picture: its label, the class it is taken for, and the probabilities of the two by a model that has seen "
        "neither this picture nor its group. Some labels are wrong, others are right and hard to see: ask who can tell."
    )
    rows = tuple(tuple(pictures[i : i + columns]) for i in range(0, len(pictures), columns))
    title = f"Likely label errors: the first {len(pictures)} of {len(errors)}"
    return [Gallery("label_error", title, explanation, rows)]


def _text(found: Estimate) -> str:
    if found.value is None:
        return found.note
    interval = "" if found.low is None or found.high is None else f" ({found.low:.3f} to {found.high:.3f})"
    return f"{found.value:.3f}{interval}"
