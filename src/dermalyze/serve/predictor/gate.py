"""The gate: is the image good enough, and of the model's kind? Accept, accept with caution, or refer, with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dermalyze.imaging.modalities import Limit, Modality
from dermalyze.imaging.quality import Appraisal, Likeness

VERDICTS = ("accept", "caution", "refer")
"""From good to bad; the worst of all is that of the image."""


@dataclass(frozen=True)
class Check:
    """One property of an image against its limit.

    Attributes:
        name: what was measured.
        value: what was found.
        limit: the one that it does not keep, else that of caution.
        ok: whether it keeps both.
        words: what is wrong with it, or that it is good.
        verdict: of `VERDICTS`.
    """

    name: str
    value: float
    limit: float
    ok: bool
    words: str
    verdict: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {key: value for key, value in asdict(self).items() if key != "verdict"}


@dataclass(frozen=True)
class Gate:
    """What the gate found on one image, before any model saw it.

    Attributes:
        checks: of its quality.
        modality: whether it is of the model's kind of images.
        score: how far it is from them; None where the model does not know its kind.
        words: of the modality.
    """

    checks: tuple[Check, ...]
    modality: str
    score: float | None
    words: str

    @property
    def quality(self) -> str:
        """The worst verdict of the checks."""
        return worst([check.verdict for check in self.checks])

    @property
    def verdict(self) -> str:
        """The worst of quality and modality."""
        return worst([self.quality, self.modality])

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not simply accepted, in words."""
        found = [check.words for check in self.checks if not check.ok]
        return (*found, *([self.words] if self.modality != "accept" else []))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values: `quality` and `modality`."""
        return {
            "quality": {"verdict": self.quality, "checks": [check.as_dict() for check in self.checks]},
            "modality": {"verdict": self.modality, "score": self.score, "words": self.words},
        }


UNJUDGED = Gate((), "accept", None, "not evaluated")


def worst(verdicts: Sequence[str]) -> str:
    """The worst of some verdicts; of none, `accept`.

    >>> worst(["accept", "refer", "caution"])
    'refer'
    """
    return max(verdicts, key=VERDICTS.index, default=VERDICTS[0])


def check_image(
    looks: Appraisal,
    width: int,
    height: int,
    *,
    network: tuple[int, int],
    kind: Modality,
    likeness: Likeness | None = None,
) -> Gate:
    """Check one image.

    Args:
        looks: measured on it.
        width, height: of the image, px.
        network: width and height of the network's input, px.
        likeness: to the images that the model was trained on; None: they are not recorded, and the modality is not checked.
        kind: whose limits of quality and size hold.
    """
    valid = kind.valid
    size = _size(min(width, height), min(network), valid.small, valid.tiny)
    checks = (size, *(_check(name, getattr(looks, name), limit) for name, limit in valid.limits.items()))
    if likeness is None:
        return Gate(checks, "accept", None, "the model does not say what its training images look like; not checked")
    score, verdict, words = likeness.of(looks)
    return Gate(checks, verdict, round(score, 3), words)


def conclude(gate: Gate, decision: str, reason: str | None, metadata: Sequence[str] = ()) -> tuple[str, tuple[str, ...]]:
    """The verdict on an image and its answer together, and the reasons in words.

    Args:
        gate: what was found before the model saw it.
        decision: of the model's rule: "answer", "set" or "refer".
        reason: why it is not simply answered.
        metadata: what was wrong with them.

    >>> conclude(Gate((), "accept", None, ""), "set", "a or b")
    ('caution', ('a or b',))
    """
    by_rule = {"answer": "accept", "set": "caution", "refer": "refer"}[decision]
    verdict = worst([by_rule, gate.verdict, "caution" if metadata else "accept"])
    return verdict, (*([reason] if reason else []), *gate.reasons, *metadata)


def of_model(looks: Mapping[str, Any] | None, training: Mapping[str, Any], kind: Modality) -> Likeness | None:
    """How a model's training images look: what its artifact records, else the reference of its modality for its source.

    Args:
        looks, training: of the artifact's record.
        kind: of images that the model takes.

    Raises:
        ModelError: the looks are damaged.
    """
    return Likeness.from_dict(looks) if looks is not None else kind.valid.likeness(training.get("source"))


def _size(edge: int, network: int, small: float, tiny: float) -> Check:
    verdict = "refer" if edge < tiny * network else "caution" if edge < small * network else "accept"
    limit = (tiny if verdict == "refer" else small) * network
    words = f"the shorter edge has {edge} px; the network takes {network}"
    said = f"the image is small: {words}" if verdict != "accept" else words
    return Check("size_px", float(edge), limit, verdict == "accept", said, verdict)


def _check(name: str, value: float, limit: Limit) -> Check:
    sign = -1 if limit.end == "low" else 1
    if sign * (value - limit.refer) > 0:
        return Check(name, value, limit.refer, False, limit.hard, "refer")
    if sign * (value - limit.caution) > 0:
        return Check(name, value, limit.caution, False, limit.mild, "caution")
    return Check(name, value, limit.caution, True, f"{name} is within its limit", "accept")
