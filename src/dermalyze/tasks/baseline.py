"""What an answer that ignores the image reaches, with which a training is compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Baseline:
    """Values of answers without skill on one set.

    Attributes:
        accuracy: of the best answer that is the same for every image.
        answer: that answer, in words.
        metric: the validation metric that shows skill; 1 is perfect.
        title: its name in a sentence.
        chance: its value without skill.
        loss: log loss of an even guess.
    """

    accuracy: float
    answer: str
    metric: str
    title: str
    chance: float
    loss: float
