"""Which network for a task: the documents' guidelines applied, class imbalance counted, the leaders timed on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import yaml

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.progress import say
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_classes
from dermalyze.data.splitting import read_part
from dermalyze.errors import UsageError, nearest
from dermalyze.models.cards import Card, cards
from dermalyze.tasks.base import TASKS, Task
from dermalyze.workflows.guidelines import Device, Like, Need, Setting, Situation, guidelines

LEADERS = 3
BATCH = 8
LIKE_DERMAMNIST = (
    "ham10000",
    "isic2018",
    "isic2019",
    "isic2020",
    "isic_archive",
    "bcn20000",
    "pad_ufes_20",
    "derm7pt",
    "fitzpatrick17k",
)
FEW = 20
"""A class or label with fewer training images than this is named."""


@dataclass(frozen=True)
class Measured:
    """A network on this machine, with random weights, fp32, at its own size.

    Attributes:
        latency_ms: of one image alone.
        images_per_s: in batches of 8, forward only.
        weights_mib: of its parameters; training with AdamW holds four times that and the activations.
    """

    latency_ms: float
    images_per_s: float
    weights_mib: float


@dataclass(frozen=True)
class Candidate:
    """A network with the reasons for its place.

    Attributes:
        score: sum of the points of the rules that speak of it.
        reasons: (points, words, source) of each, the weightiest first.
    """

    card: Card
    score: int
    reasons: tuple[tuple[int, str, str], ...]
    measured: Measured | None = None


@dataclass(frozen=True)
class Imbalance:
    """Of a training split.

    Attributes:
        times: as `Task.imbalance` measures it.
        sentence: that in words.
        alternatives: what to do instead of weights.
    """

    times: float
    sentence: str
    alternatives: str


@dataclass(frozen=True)
class Advice:
    """What to begin with.

    Attributes:
        situation: what the advice is for.
        candidates: best first.
        counts: training images of each class, empty where there is no run.
        settings: what to write in `train`, and why.
        notes: what else to know.
        yaml: an experiment to paste.
    """

    situation: Situation
    candidates: tuple[Candidate, ...]
    counts: dict[str, int]
    settings: tuple[Setting, ...]
    notes: tuple[str, ...]
    yaml: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "situation": asdict(self.situation),
            "candidates": [
                {
                    **c.card.as_dict(),
                    "score": c.score,
                    "reasons": [{"points": p, "reason": r, "source": s} for p, r, s in c.reasons],
                    "measured": None if c.measured is None else asdict(c.measured),
                }
                for c in self.candidates
            ],
            "counts": self.counts,
            "settings": [{"train": dict(s.train), "reason": s.reason, "source": s.source} for s in self.settings],
            "notes": list(self.notes),
            "yaml": self.yaml,
        }

    def lines(self) -> list[str]:
        """Lines for a person."""
        s = self.situation
        asked = [f"{s.images:,} images", s.device, *([s.need] if s.need else []), *([f"like {s.like}"] if s.like else [])]
        lines = [f"for {', '.join(asked)}; points by the documents' guidelines, which are not results of ours:"]
        for number, c in enumerate(self.candidates, 1):
            cost = f"{c.card.parameters / 1e6:.1f} M parameters, {c.card.multiply_adds / 1e9:.1f} G multiply-adds"
            lines.append(f"{number:>2}. {c.card.name:<30}{c.score:>+3}  {cost}")
            if c.measured is not None:
                m = c.measured
                speed = f"{m.latency_ms:.0f} ms an image, {m.images_per_s:.0f} images/s"
                lines.append(f"      here: {speed}, {m.weights_mib:.0f} MiB of weights")
            if number <= LEADERS:
                lines += [f"      {points:+d} {reason} ({source})" for points, reason, source in c.reasons]
        if self.counts:
            lines.append("training images: " + ", ".join(f"{name} {n}" for name, n in self.counts.items()))
        lines += [f"train: {dict(one.train)}: {one.reason} ({one.source})" for one in self.settings]
        return [*lines, *self.notes, "", *self.yaml.splitlines()]


def advise(
    run: Run | None = None, spec: ExperimentSpec | None = None, *, images: int | None = None, classes: int | None = None,
    device: str | None = None, need: str | None = None, like: str | None = None, metadata: bool = False,
    measure: bool | None = None,
) -> Advice:  # fmt: skip
    """Rank networks for a run's data, or for a task in figures, each with its reasons, and write an experiment to begin with.

    Args:
        run: prepared and split: images and classes are counted in it. Or else `images` and `classes`.
        spec: the run's experiment.
        images, classes: of a set that there is no run of.
        device: "cpu" or "gpu"; default: what this machine has.
        need: interpretability, speed, accuracy or edge.
        like: pathmnist, chestmnist or dermamnist, whose rows then count; default for `LIKE_DERMAMNIST`: dermamnist. The
            documents' loss is taken for a set that is named.
        metadata: age, sex and site are available.
        measure: time the leaders here; default: for a run.

    Raises:
        UsageError: neither or both of a run and figures, figures below 1 (classes: 2), or an unknown word.

    >>> advise(images=800, classes=2, device="cpu", need="edge").candidates[0].card.name
    'efficientnet_b0'
    """
    figures = [number for number in (images, classes) if number is not None]
    if len(figures) != (2 if run is None else 0):
        raise UsageError("advise: name a run, or give both --images N and --classes C")
    device = device or machine_device()
    for option, word, allowed in (
        ("--device", device, get_args(Device)),
        ("--need", need, get_args(Need)),
        ("--like", like, get_args(Like)),
    ):
        if word is not None and word not in allowed:
            raise UsageError(f"{option} {word}: must be {', '.join(allowed)}{nearest(word, allowed)}")
    counts: dict[str, int] = {}
    balance: Imbalance | None = None
    named = like
    if run is not None and spec is not None:
        parts = run.certificate()["counts"]
        counts, images = dict(parts["train"]["classes"]), sum(part["images"] for part in parts.values())
        balance = measured_imbalance(run, TASKS[spec.task.kind])
        like = like or ("dermamnist" if spec.data.source.kind in LIKE_DERMAMNIST else None)
    elif images < 1 or classes < 2:  # type: ignore[operator]
        raise UsageError(f"--images {images} --classes {classes}: at least 1 image and 2 classes")
    situation = Situation(images or 0, device, need, like)  # type: ignore[arg-type]
    ranked = rank(situation)
    if measure if measure is not None else run is not None:
        ranked = [*timed_here(ranked[:LEADERS], len(counts) or classes or 2, device), *ranked[LEADERS:]]
    best = ranked[0].card
    times = None if balance is None else balance.times
    settings = tuple(chosen(situation, times, pretrained=best.license is not None, like=named))
    return Advice(
        situation, tuple(ranked), counts, settings, tuple(notes(situation, counts, balance, best, metadata)),
        to_paste(best, settings, spec),
    )  # fmt: skip


def machine_device() -> str:
    """ "gpu" where this machine has one."""
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def rank(situation: Situation, names: Sequence[str] | None = None) -> list[Candidate]:
    """Candidates by their points; of equal ones the cheaper first."""
    holding = [rule for rule in guidelines().rules if rule.holds(situation)]
    found = []
    for card in (cards()[name] for name in names or guidelines().candidates):
        spoken = sorted((rule for rule in holding if rule.speaks_of(card)), key=lambda rule: -abs(rule.points))
        reasons = tuple((rule.points, rule.reason, rule.source) for rule in spoken)
        found.append(Candidate(card, sum(rule.points for rule in spoken), reasons))
    return sorted(found, key=lambda c: (-c.score, c.card.multiply_adds))


def chosen(situation: Situation, times: float | None, *, pretrained: bool, like: str | None = None) -> list[Setting]:
    """Strategy by the number of images, and what to do about rare classes: the loss of the set that was named (`like`), else by
    their share."""
    settings = []
    if pretrained:
        fits = (
            s for s in guidelines().strategies if s.like in (None, situation.like) and s.least <= situation.images < s.below
        )
        settings.append(next(fits))
    losses = [setting for setting in guidelines().losses if setting.like == like]
    settings += losses
    if times is not None and not losses:
        settings.append(next(s for s in guidelines().imbalance if s.least <= times < s.below))
    return settings


def measured_imbalance(run: Run, task: Task) -> Imbalance:
    """Of the training split."""
    classes = read_classes(run)
    targets = task.targets(read_part(run, "train")["label"].tolist(), classes)
    return Imbalance(*task.imbalance(targets, len(classes)), guidelines().alternatives[task.kind])


def notes(situation: Situation, counts: dict[str, int], balance: Imbalance | None, best: Card, metadata: bool) -> list[str]:
    """What else to know."""
    found = []
    if balance is not None:
        found.append(balance.sentence)
        if balance.times >= guidelines().imbalance[0].below:
            found.append(balance.alternatives)
        few = [f"{name} ({n})" for name, n in counts.items() if n < FEW]
        if few:
            found.append(f"under {FEW} training images: {', '.join(few)}; no setting makes up for that, more images do")
    else:
        found.append("class imbalance is not known; once split, dermalyze advise RUN counts it")
    if situation.need == "accuracy":
        found.append("an ensemble of five is the most confident gain: dermalyze ensemble --config EXPERIMENT.YAML OUT")
    if best.license is not None:
        found.append("pretrained: true takes weights from timm's hub; without the hub: model.weights: FILE.safetensors")
    if metadata:
        found.append("age, sex and site: dermalyze audit RUN says what they know alone; the fusion of both has that to beat")
    return [*found, "which is best on your images, only they tell: dermalyze compare STUDY.YAML"]


def to_paste(best: Card, settings: Sequence[Setting], spec: ExperimentSpec | None) -> str:
    """An experiment in YAML that loads as it is; data and split are the run's."""
    values: dict[str, Any] = {"name": f"advised {best.name}"}
    if spec is not None:
        kept = {"data": spec.data, "split": spec.split}
        values |= {key: one.model_dump(mode="json", exclude_defaults=True) for key, one in kept.items()}
        default = ExperimentSpec()
        if spec.data.source != default.data.source:  # without its defaults a source would lack its kind
            values["data"]["source"] = spec.data.source.model_dump(mode="json")
        if spec.task != default.task:
            values["task"] = spec.task.model_dump(mode="json")
    values["model"] = {"backbone": best.name, "pretrained": best.license is not None}
    values["train"] = {key: value for one in settings for key, value in one.train.items()}
    values = {key: value for key, value in values.items() if value != {}}
    build_experiment(values, "advise")
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def timed_here(leaders: Sequence[Candidate], classes: int, device: str) -> list[Candidate]:
    """The leaders with what they cost here; as they are where this machine has no such device."""
    if device != machine_device() and device == "gpu":
        say("advise: this machine has no GPU, so nothing was timed")
        return list(leaders)
    say(f"advise: timing {', '.join(c.card.name for c in leaders)}")
    return [Candidate(c.card, c.score, c.reasons, timed(c.card, classes, device)) for c in leaders]


def timed(card: Card, classes: int, device: str) -> Measured:
    """A network with random weights, one image and a batch of them."""
    from dermalyze.config.model import ModelSpec
    from dermalyze.models.classifier import build_classifier
    from dermalyze.workflows.cost import forward_s

    where = "cuda" if device == "gpu" else "cpu"
    model = build_classifier(ModelSpec(backbone=card.name), classes, load_weights=False).to(where)
    latency_s, batch_s = (forward_s(model, batch, card.size, where) for batch in (1, BATCH))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return Measured(1e3 * latency_s, BATCH / batch_s, weights / 2**20)
