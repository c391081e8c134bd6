"""The gate: is the picture good enough, and of the model's kind? Accept, accept with caution, or refer, with reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dermalyze.imaging.quality import Appraisal, Likeness

VERDICTS = ("accept", "caution", "refer")
"""From good to bad; the worst of all is that of the picture."""

SMALL, TINY = 0.5, 0.25
"""Of the network's shorter edge: below the first a picture is answered with caution, below the second referred."""
LIMITS: dict[str, tuple[str, float, float, str, str]] = {
    "sharpness": ("low", 9.0, 3.0, "the picture is blurred", "the picture shows hardly any edge: it is blurred or empty"),
    "contrast": (
        "low",
        0.03,
        0.012,
        "the picture has little contrast",
        "the picture shows next to nothing: it has no contrast",
    ),
    "dark": ("high", 0.25, 0.6, "much of the picture is black", "the picture is black, or nearly so"),
    "light": ("high", 0.4, 0.7, "much of the picture is white", "the picture is white, or nearly so"),
}
"""Measure of `Appraisal` to: the bad end, the limit of caution, that of referral, and the words of each.

Set on HAM10000's training part: 0.5 % of it or less lies beyond the limits of caution, and nothing beyond those of referral."""


@dataclass(frozen=True)
class Check:
    """One property of a picture against its limit.

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
    """What the gate found on one picture, before any model saw it.

    Attributes:
        checks: of its quality.
        modality: whether it is of the model's kind of pictures.
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


UNJUDGED = Gate((), "accept", None, "not judged")


def worst(verdicts: Sequence[str]) -> str:
    """The worst of some verdicts; of none, `accept`.

    >>> worst(["accept", "refer", "caution"])
    'refer'
    """
    return max(verdicts, key=VERDICTS.index, default=VERDICTS[0])


def judge(looks: Appraisal, width: int, height: int, *, network: tuple[int, int], likeness: Likeness | None = None) -> Gate:
    """Judge one picture.

    Args:
        looks: measured on it.
        width, height: of the picture, px.
        network: width and height of the network's input, px.
        likeness: of the pictures that the model was trained on; None: they are not known, and the modality is not judged.
    """
    checks = (_size(min(width, height), min(network)), *(_check(name, getattr(looks, name)) for name in LIMITS))
    if likeness is None:
        return Gate(checks, "accept", None, "the model does not say what its training pictures look like; not judged")
    score, verdict, words = likeness.of(looks)
    return Gate(checks, verdict, round(score, 3), words)


def conclude(gate: Gate, decision: str, reason: str | None, metadata: Sequence[str] = ()) -> tuple[str, tuple[str, ...]]:
    """The verdict on a picture and its answer together, and the reasons in words.

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


def of_model(looks: Mapping[str, Any] | None, training: Mapping[str, Any]) -> Likeness | None:
    """How a model's training pictures look: its artifact's own words, else dermoscopy where it was trained on that.

    Args:
        looks, training: of the artifact's record.

    Raises:
        ModelError: the looks are damaged.
    """
    if looks is not None:
        return Likeness.from_dict(looks)
    return Likeness.dermoscopy() if training.get("source") in DERMOSCOPY else None


DERMOSCOPY = ("ham10000", "isic", "isic2019", "isic2020")
"""Sources of dermoscopic pictures."""


def _size(edge: int, network: int) -> Check:
    verdict = "refer" if edge < TINY * network else "caution" if edge < SMALL * network else "accept"
    limit = (TINY if verdict == "refer" else SMALL) * network
    words = f"the shorter edge has {edge} px; the network takes {network}"
    return Check(
        "size_px",
        float(edge),
        limit,
        verdict == "accept",
        f"the picture is small: {words}" if verdict != "accept" else words,
        verdict,
    )


def _check(name: str, value: float) -> Check:
    end, caution, refer, mild, hard = LIMITS[name]
    sign = -1 if end == "low" else 1
    if sign * (value - refer) > 0:
        return Check(name, value, refer, False, hard, "refer")
    if sign * (value - caution) > 0:
        return Check(name, value, caution, False, mild, "caution")
    return Check(name, value, caution, True, f"{name} is within its limit", "accept")
