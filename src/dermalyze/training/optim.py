"""Optimizers, their parameter groups, and the moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from dermalyze.config.train import OptimizerSpec
from dermalyze.errors import ConfigError, ModelError


class Pace(NamedTuple):
    """How a parameter learns.

    Attributes:
        scale: share of the learning rate, 0 to leave it out.
        start: first epoch in which it takes a gradient. Those of one group must begin together: torch's fused SGD knows one
            first step per group.
    """

    scale: float
    start: int = 0


Paces = Mapping[nn.Parameter, Pace]


def parameter_groups(model: nn.Module, *, lr: float, weight_decay: float, paces: Paces) -> list[dict[str, Any]]:
    """Every parameter that learns in exactly one group.

    Decay leaves out biases, normalization layers and whatever else has one dimension or none, and the names that a sub-module
    lists in `no_weight_decay()` (timm: position embeddings, class tokens). A parameter that takes no gradient yet is in its
    group all the same: until it has one, torch's optimizers neither change it nor keep state for it.

    Args:
        model: the network.
        lr: the full learning rate.
        weight_decay: of the decayed.
        paces: of parameters. Those that are not named have the whole rate from the start, or none if they take no gradient.

    Returns:
        Groups for a torch optimizer. Each also carries `name`, `start`, and `lr_scale`, its rate relative to `lr`.

    Raises:
        ConfigError: nothing is trainable.

    >>> groups = parameter_groups(nn.Linear(2, 3), lr=0.1, weight_decay=0.02, paces={})
    >>> [(group["name"], group["weight_decay"], len(group["params"])) for group in groups]
    [('decay', 0.02, 1), ('no_decay', 0.0, 1)]
    """
    exempt = {
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in model.named_modules()
        if callable(listed := getattr(module, "no_weight_decay", None))
        for name in listed()
    }
    groups: dict[tuple[Pace, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim > 1 and name not in exempt
        pace = paces.get(parameter, Pace(float(parameter.requires_grad)))
        if pace.scale:
            groups.setdefault((pace, decayed), []).append(parameter)
    if not groups:
        raise ConfigError("the model has no trainable parameter: everything is frozen")
    return [
        {
            "name": "decay" if decayed else "no_decay",
            "params": groups[pace, decayed],
            "lr": lr * pace.scale,
            "lr_scale": pace.scale,
            "start": pace.start,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for pace, decayed in sorted(groups, reverse=True)
    ]


def adamw(model: nn.Module, *, paces: Paces, lr: float, weight_decay: float) -> Optimizer:
    """AdamW: Adam whose decay does not pass through the moments.

    Loshchilov & Hutter 2019, arXiv:1711.05101
    """
    groups = parameter_groups(model, lr=lr, weight_decay=weight_decay, paces=paces)
    return AdamW(groups, lr=lr, weight_decay=weight_decay, fused=_fusable(groups))


def sgd(model: nn.Module, *, paces: Paces, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    """SGD with Nesterov momentum (plain where momentum is 0); the decay is an L2 term of the gradient."""
    groups = parameter_groups(model, lr=lr, weight_decay=weight_decay, paces=paces)
    return SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0, fused=_fusable(groups))


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {"adamw": adamw, "sgd": sgd}


def build_optimizer(model: nn.Module, spec: OptimizerSpec, paces: Paces | None = None) -> Optimizer:
    """The optimizer of a spec over its `parameter_groups`.

    Move the model to its device first: the fused kernels are chosen by it.
    """
    return OPTIMIZERS[spec.kind](model, paces=paces or {}, **spec.model_dump(exclude={"kind"}))


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the rate of each group to `lr` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _fusable(groups: list[dict[str, Any]]) -> bool:
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for group in groups for p in group["params"])


class Ema:
    """Exponential moving average of a model's parameters and buffers.

        shadow = d shadow + (1 - d) model,   d = min(decay, (1 + n) / (10 + n)) at update n = 1, 2, ...

    The growing decay lets the average forget the random start. Integer buffers (BatchNorm's counter) are copied.

    Args:
        model: the trained one, on its device; not wrapped by torch.compile (its names would differ).
        decay: 0 < decay < 1.

    >>> model = nn.Linear(1, 1, bias=False).requires_grad_(False)
    >>> _ = model.weight.fill_(0.0)
    >>> ema = Ema(model, decay=0.5)
    >>> _ = model.weight.fill_(11.0)
    >>> ema.update(model)
    >>> with ema.swapped(model):
    ...     model.weight.item()
    9.0
    >>> model.weight.item()
    11.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.shadow: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the model; call it after each optimizer step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        live = model.state_dict()
        floats = [name for name, tensor in self.shadow.items() if tensor.is_floating_point()]
        others = [name for name in self.shadow if name not in set(floats)]
        torch._foreach_lerp_([self.shadow[name] for name in floats], [live[name] for name in floats], 1 - decay)
        if others:
            torch._foreach_copy_([self.shadow[name] for name in others], [live[name] for name in others])

    @contextmanager
    def swapped(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model with the average in it, for validation and saving.

        Afterwards, also after an error, it has its trained values again; whatever was written to it inside is lost.
        """
        with torch.no_grad():
            live = model.state_dict()
            kept = {name: tensor.clone() for name, tensor in live.items()}
            _copy(live, self.shadow)
        try:
            yield model
        finally:
            with torch.no_grad():
                _copy(live, kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only, ready for safetensors: `updates` and `shadow.<name>`."""
        return {"updates": torch.tensor(self.updates), **{f"shadow.{name}": tensor for name, tensor in self.shadow.items()}}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a saved average.

        Raises:
            ModelError: names or shapes that are not this model's.
        """
        expected = {"updates", *(f"shadow.{name}" for name in self.shadow)}
        if expected != set(state):
            odd = sorted(expected ^ set(state))
            raise ModelError(f"the saved weight average does not fit: {len(odd)} names differ, first '{odd[0]}'")
        for name, tensor in self.shadow.items():
            saved = state[f"shadow.{name}"]
            if saved.shape != tensor.shape:
                raise ModelError(f"the saved weight average does not fit: '{name}' is {[*saved.shape]}, not {[*tensor.shape]}")
        self.updates = int(state["updates"])
        _copy(self.shadow, {name: state[f"shadow.{name}"] for name in self.shadow})


def _copy(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    for name, target in targets.items():
        target.copy_(sources[name])
