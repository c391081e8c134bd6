"""Which of a run's answers stand in the gallery: worst mistakes first, then confusions, doubt, and what went well."""

# Shapes: N images, C classes.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.metrics.classification import Scores
from dermalyze.metrics.uncertainty import entropy

MOST_PAIRS = 4
A_CLASS = 1
"""Pictures of each class that are right, a quarter of the others' number and at least this."""


def choose_sections(
    scores: Scores,
    ids: Sequence[str],
    groups_N: Sequence[str],
    classes: Sequence[str],
    among_N: NDArray[np.bool_],
    cases: int,
) -> list[dict[str, Any]]:
    """Sections of the gallery; a picture stands in the first that it belongs to, and of a lesion one picture.

    Args:
        scores: labels and calibrated probabilities.
        ids, groups_N: of each image.
        classes: names.
        among_N: those that may be shown.
        cases: pictures a section; a quarter of that, at least one, a confusion or class.

    >>> scores = Scores(np.array([0, 1, 0]), np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]))
    >>> found = choose_sections(scores, list("abc"), list("xyz"), ["mel", "nv"], np.ones(3, bool), 1)
    >>> [(section["title"], section["image_ids"]) for section in found]
    [('Worst mistakes', ['b']), ('Most uncertain', ['c']), ('Right and sure, by class', ['a'])]
    """
    confidence, called, labels = scores.probs.max(axis=1), scores.predicted, scores.labels
    wrong = called != labels
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

    few = max(A_CLASS, cases // 4)
    made = [("Worst mistakes", "Wrong answers that the model was surest of.", take(ordered(wrong, confidence), cases))]
    pairs = Counter((int(a), int(b)) for a, b in zip(labels[wrong & among_N], called[wrong & among_N], strict=True))
    for (label, answer), n in pairs.most_common(MOST_PAIRS):
        rows = take(ordered(wrong & (labels == label) & (called == answer), confidence), few)
        made.append((f"{classes[label]} called {classes[answer]}", f"{n} of the test images.", rows))
    made.append(
        ("Most uncertain", "Largest entropy of the probabilities.", take(ordered(among_N, entropy(scores.probs)), cases))
    )
    right: list[int] = []
    for c in range(len(classes)):
        right += take(ordered(~wrong & (labels == c), confidence), few)
    made.append(("Right and sure, by class", "What the network answers best, one class after the other.", right))
    return [{"title": title, "says": says, "image_ids": [ids[row] for row in rows]} for title, says, rows in made if rows]
