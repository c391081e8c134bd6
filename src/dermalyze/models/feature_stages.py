"""The parts of a network: stages in depth order, and where a class-activation map is read.

Shapes: B images, H x W pixels, D channels, h x w feature map, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Stage:
    """One part of a network.

    Attributes:
        name: "stem" for the first; otherwise the dotted name of its first module within the network.
        modules: the largest modules that lie wholly in this part, in order. Setting them to evaluation mode stops its
            BatchNorm and dropout; parameters that hang on the network itself (a class token) are in none of them.
        parameters: all of its parameters.
    """

    name: str
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]


@dataclass(frozen=True, eq=False)
class CamTarget:
    """Where a class-activation map is read: the output of a module, and how that becomes a grid.

    Attributes:
        module: its output is read with a forward hook, and differentiated.
        prefix_tokens: tokens before those of the grid (class token, registers); None: whatever the grid leaves over.
        channels_last: a map of four axes comes as (B, h, w, D).
        grid_px: (H, W) of the images to (h, w) of the tokens' grid; asked for tokens only.
    """

    module: nn.Module
    prefix_tokens: int | None
    channels_last: bool
    grid_px: Callable[[tuple[int, int]], tuple[int, int]]

    def as_map(self, output: Tensor, size: tuple[int, int]) -> Tensor:
        """The module's output, or its gradient, as (B, D, h, w): tokens in raster order, those of no place left out.

        Args:
            output: (B, D, h, w), (B, h, w, D) or (B, N, D).
            size: (H, W) of the images, px.

        Raises:
            ValueError: it is no grid.

        >>> import torch
        >>> target = CamTarget(nn.Identity(), None, False, lambda size: (size[0] // 16, size[1] // 16))
        >>> target.as_map(torch.arange(7.0).view(1, 7, 1), (32, 48))[0, 0]
        tensor([[1., 2., 3.],
                [4., 5., 6.]])
        """
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if self.channels_last else output
        if output.ndim == 3:
            rows, columns = self.grid_px(size)
            prefix = output.shape[1] - rows * columns
            if prefix >= 0 and prefix == (prefix if self.prefix_tokens is None else self.prefix_tokens):
                return output[:, prefix:].transpose(1, 2).reshape(-1, output.shape[2], rows, columns)
        raise ValueError(f"features {tuple(output.shape)} of an image of {size[0]}x{size[1]} px are no map")


def split_stages(net: nn.Module, groups: Iterable[Iterable[str]]) -> list[Stage]:
    """Stages of a network from the names of their parameters.

    A last group that holds vectors only, a closing norm, joins the one before: frozen or thawed alone it would be no stage.

    Args:
        net: the network.
        groups: names of parameters, in depth order.

    Raises:
        ValueError: a parameter is in no group or in two.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.BatchNorm1d(3))
    >>> names = [name for name, _ in net.named_parameters()]
    >>> [(stage.name, len(stage.parameters)) for stage in split_stages(net, [names[:2], names[2:4], names[4:]])]
    [('stem', 2), ('1', 4)]
    """
    known = dict(net.named_parameters())
    named = [names for group in groups if (names := list(group))]
    while len(named) > 1 and all(known[name].ndim < 2 for name in named[-1]):
        closing = named.pop()
        named[-1] += closing
    stage_of = {id(known[name]): index for index, names in enumerate(named) for name in names}
    if len(stage_of) != len(known) or sum(map(len, named)) != len(known):
        raise ValueError(f"the parts of {type(net).__name__} do not hold every parameter exactly once")
    modules: list[list[tuple[str, nn.Module]]] = [[] for _ in named]
    for name, module, index in _wholly(net, "", stage_of):
        modules[index].append((name, module))
    return [
        Stage(
            "stem" if index == 0 else modules[index][0][0] if modules[index] else names[0],
            tuple(module for _, module in modules[index]),
            tuple(known[name] for name in names),
        )
        for index, names in enumerate(named)
    ]


def child_groups(net: nn.Module) -> list[list[str]]:
    """Names of parameters by child, and by child of a sequence, in the order they were made; those of no child go to the first.

    >>> child_groups(nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))))
    [['0.weight', '0.bias'], ['1.0.weight', '1.0.bias'], ['1.1.weight', '1.1.bias']]
    """
    groups: dict[str, list[str]] = {}
    sequences = tuple(
        f"{name}."
        for name, child in net.named_children()
        if name != "stem" and isinstance(child, nn.Sequential | nn.ModuleList)
    )
    for name, _ in net.named_parameters():
        depth = 2 if name.startswith(sequences) else 1 if "." in name else 0
        groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    direct = groups.pop("", [])
    first, *rest = groups.values()
    return [direct + first, *rest]


def _wholly(module: nn.Module, prefix: str, stage_of: dict[int, int]) -> Iterator[tuple[str, nn.Module, int]]:
    """The largest modules whose parameters are all of one stage, in order."""
    for child_name, child in module.named_children():
        found = {stage_of[id(parameter)] for parameter in child.parameters()}
        if len(found) == 1:
            yield f"{prefix}{child_name}", child, found.pop()
        elif found:
            yield from _wholly(child, f"{prefix}{child_name}.", stage_of)
