"""Chooses the cases of the gallery: largest errors, then confusions, uncertain and correct predictions."""

# Shapes: N images, C classes.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.metrics.ranking import Floats
from dermalyze.metrics.uncertainty import entropy
from dermalyze.tasks.base import Task
from dermalyze.tasks.multilabel import names_of

MOST_PAIRS = 4
A_CLASS = 1
"""Correct predictions shown per class: a quarter of the number in other sections, and at least this."""


def choose_sections(
    task: Task,
    there_NC: NDArray[np.bool_],
    probs_NC: Floats,
    called_NC: NDArray[np.bool_],
    ids: Sequence[str],
    groups_N: Sequence[str],
    classes: Sequence[str],
    among_N: NDArray[np.bool_],
    cases: int,
) -> list[dict[str, Any]]:
    """Sections of the gallery. An image is shown in the first section that it fits; one image per lesion.

    Args:
        task: task of the run.
        there_NC: whether an image has a class or label.
        probs_NC: calibrated probabilities.
        called_NC: whether a class or label is predicted.
        ids, groups_N: of each image.
        classes: names.
        among_N: images that may be shown.
        cases: images per section; a quarter of that, at least one, per confusion or class.

    >>> from dermalyze.tasks.base import TASKS
    >>> task, there = TASKS["multiclass"], np.array([[1, 0], [0, 1], [1, 0]], bool)
    >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> called = task.called(probs, None)
    >>> found = choose_sections(task, there, probs, called, list("abc"), list("xyz"), ["mel", "nv"], np.ones(3, bool), 1)
    >>> [(section["title"], section["image_ids"]) for section in found]
    [('Largest errors', ['b']), ('Most uncertain', ['c']), ('Correct and confident, by class', ['a'])]
    """
    vain_NC, missed_NC = called_NC & ~there_NC, there_NC & ~called_NC
    wrong = np.asarray((vain_NC | missed_NC).any(axis=1))
    sure_of_vain = np.where(vain_NC, probs_NC, 0.0).max(axis=1)
    sureness = np.where(vain_NC.any(axis=1), sure_of_vain, np.where(missed_NC, 1 - probs_NC, 0.0).max(axis=1))
    mixed_up = [confusion(*rows, classes) for rows in zip(missed_NC, vain_NC, strict=True)]
    used_groups: set[str] = set()

    def take(rows: Iterable[int], most: int) -> list[int]:
        found: list[int] = []
        for row in rows:
            if len(found) == most:
                break
            if among_N[row] and groups_N[row] not in used_groups:
                found.append(int(row))
                used_groups.add(groups_N[row])
        return found

    def ordered(allowed_N: NDArray[np.bool_], value_N: NDArray[np.floating[Any]]) -> list[int]:
        return sorted(map(int, np.flatnonzero(allowed_N)), key=lambda row: (-value_N[row], ids[row]))

    few, doubt_N = max(A_CLASS, cases // 4), entropy(task.choices(probs_NC)).sum(axis=-1)
    made = [("Largest errors", "Wrong predictions with the highest confidence.", take(ordered(wrong, sureness), cases))]
    for title, n in Counter(mixed_up[n] for n in np.flatnonzero(wrong & among_N)).most_common(MOST_PAIRS):
        same = wrong & np.array([one == title for one in mixed_up])
        made.append((title, f"{n} of the test images.", take(ordered(same, sureness), few)))
    made.append(
        (
            "Most uncertain",
            "Predictions with the largest entropy of the probabilities.",
            take(ordered(among_N, doubt_N), cases),
        )
    )
    right: list[int] = []
    for c in range(len(classes)):
        right += take(ordered(~wrong & there_NC[:, c], probs_NC[:, c]), few)
    made.append(("Correct and confident, by class", "Correct predictions with the highest confidence, class by class.", right))
    return [{"title": title, "says": says, "image_ids": [ids[row] for row in rows]} for title, says, rows in made if rows]


def confusion(missed_C: NDArray[np.bool_], vain_C: NDArray[np.bool_], classes: Sequence[str]) -> str:
    """The error on one image, in words.

    >>> confusion(np.array([True, False]), np.array([False, True]), ["mel", "nv"])
    'mel predicted nv'
    """
    missed, vain = names_of(missed_C, classes), names_of(vain_C, classes)
    if missed_C.any():
        return f"{missed} predicted {vain}" if vain_C.any() else f"{missed} missed"
    return f"{vain} false positive"
