"""Transfer strategies: which stages of a backbone learn in an epoch, and at what share of the learning rate.

A strategy is a pure function of the epoch, so a resume needs no memory of what was unfrozen: it asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from torch import nn

from dermalyze.config.train import StrategySpec
from dermalyze.core.progress import say
from dermalyze.errors import ConfigError
from dermalyze.models.attention import NonLocal, Se, Spatial
from dermalyze.models.classifier import Classifier
from dermalyze.training.optim import Pace


def full(depth: int, epoch: int) -> list[float]:
    """Everything learns, at the whole rate."""
    return [1.0] * depth


def frozen(depth: int, epoch: int) -> list[float]:
    """The head alone learns."""
    return [0.0] * depth


def last(depth: int, epoch: int, *, stages: int) -> list[float]:
    """The head and the last stages learn.

    Raises:
        ConfigError: more stages than there are.

    >>> last(5, 0, stages=2)
    [0.0, 0.0, 0.0, 1.0, 1.0]
    """
    if stages > depth:
        raise ConfigError(f"train.strategy.stages is {stages}, and the backbone has {depth}; lower it, or write {{kind: full}}")
    return [0.0] * (depth - stages) + [1.0] * stages


def differential(depth: int, epoch: int, *, factor: float) -> list[float]:
    """Everything learns, the backbone at `factor` of the rate."""
    return [factor] * depth


def layerwise_decay(depth: int, epoch: int, *, factor: float) -> list[float]:
    """Everything learns, each stage at `factor` of the rate of the one after it; the head, after the last, at the whole.

    >>> layerwise_decay(3, 0, factor=0.5)
    [0.125, 0.25, 0.5]

    Clark et al. 2020, arXiv:2003.10555; Bao et al. 2022, arXiv:2106.08254
    """
    return [factor ** (depth - stage) for stage in range(depth)]


def gradual(depth: int, epoch: int, *, epochs: tuple[int, ...], stages: int) -> list[float]:
    """The head learns, and after each number of epochs as many more stages with it, the deepest first.

    >>> [gradual(5, epoch, epochs=(1, 10, 20), stages=2) for epoch in (0, 1, 10)]
    [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, 1.0]]

    Howard & Ruder 2018, arXiv:1801.06146
    """
    learning = min(depth, stages * sum(start <= epoch for start in epochs))
    return [0.0] * (depth - learning) + [1.0] * learning


STRATEGIES: dict[str, Callable[..., list[float]]] = {
    "full": full,
    "frozen": frozen,
    "last": last,
    "differential": differential,
    "layerwise_decay": layerwise_decay,
    "gradual": gradual,
}


def scales_at(spec: StrategySpec, depth: int, epoch: int) -> list[float]:
    """The share of the learning rate at which each stage learns; 0 is frozen. The head, which is no stage, has 1.

    Args:
        spec: `train.strategy`.
        depth: stages of the backbone, the stem included.
        epoch: 0-based.

    Returns:
        A number in 0..1 a stage, the stem first.
    """
    return STRATEGIES[spec.kind](depth, epoch, **spec.model_dump(exclude={"kind"}))


class Plan:
    """A strategy bound to a network for a whole training; before the first epoch, all learns that will ever learn.

    A frozen parameter takes no gradient, so the optimizer neither decays it nor keeps moments for it before it learns. Modules
    that hold frozen parameters only stay in evaluation mode after `.train()`: their BatchNorm keeps its statistics, their
    dropout and stochastic depth are off. What the network itself keeps fixed stays fixed.

    Args:
        model: its `backbone.stages()` are what is frozen and scaled. Whatever else it has, and attention blocks between the
            stages, which no weight file fills, learn from the start at the whole rate.
        spec: `train.strategy`.
        epochs: of the whole training.

    Attributes:
        stages: of the backbone.
        paces: of each parameter of the backbone; scale 0 where it never learns.
        starts: epochs (0-based, without the first) from which more stages learn.

    Raises:
        ConfigError: the strategy does not fit the backbone.
    """

    def __init__(self, model: Classifier, spec: StrategySpec, *, epochs: int) -> None:
        self.model = model
        self.stages = model.backbone.stages()
        blocks = [m for m in model.backbone.modules() if isinstance(m, Se | Spatial | NonLocal)]
        self._new = {id(parameter) for block in blocks for parameter in block.parameters()}
        self._learnable = [[p for p in stage.parameters if p.requires_grad and id(p) not in self._new] for stage in self.stages]
        self._scales = [scales_at(spec, len(self.stages), epoch) for epoch in range(epochs)]
        self.paces: dict[nn.Parameter, Pace] = {}
        for group, scales in zip(self._learnable, zip(*self._scales, strict=True), strict=True):
            start = next((epoch for epoch, scale in enumerate(scales) if scale), epochs)
            self.paces.update(dict.fromkeys(group, Pace(max(scales), start)))
        self.starts = [epoch for epoch in range(1, epochs) if self._scales[epoch] != self._scales[epoch - 1]]
        self._set(self._scales[-1])

    def enter(self, epoch: int) -> None:
        """Freeze and unfreeze for an epoch (0-based), and put the network in training mode."""
        self._set(self._scales[epoch])
        if epoch in self.starts:
            before, now = self._scales[epoch - 1 : epoch + 1]
            names = [stage.name for stage, old, new in zip(self.stages, before, now, strict=True) if new and not old]
            say(f"epoch {epoch + 1}: of the backbone {', '.join(reversed(names))} learn from here on")

    def _set(self, scales: list[float]) -> None:
        still: set[int] = set()
        for stage, learnable, scale in zip(self.stages, self._learnable, scales, strict=True):
            for parameter in learnable:
                parameter.requires_grad_(scale > 0)
            if not scale:
                still.update({id(parameter) for parameter in stage.parameters} - self._new)
        self.model.held = tuple(_held(nn.ModuleList([self.model.backbone]), still)) if still else ()
        self.model.train()


def _held(parent: nn.Module, still: Collection[int]) -> Iterator[nn.Module]:
    """The largest modules below a partly frozen one that are frozen whole; one without parameters goes with the one before."""
    frozen = True
    for child in parent.children():
        states = {id(parameter) in still for parameter in child.parameters()}
        if states:
            frozen = states == {True}
        if frozen:
            yield child
        elif len(states) == 2:
            yield from _held(child, still)
