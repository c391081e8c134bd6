"""What a task asks, as questions of which an image has exactly one answer, so that one classifier serves every task."""

# Shapes: N images.

from __future__ import annotations

from dataclasses import dataclass

from dermalyze.metrics.ranking import Ints

ABSENT_PRESENT = ("absent", "present")
"""The options of a label."""


@dataclass(frozen=True, eq=False)
class Choice:
    """One question: which class per image has, or whether it has one label.

    Attributes:
        label: index of the label; None where the options are the classes.
        targets: (N,) index of the right option; -1 where nobody knows.
        options: their number; of a label 2, absent and present.
    """

    label: int | None
    targets: Ints
    options: int
