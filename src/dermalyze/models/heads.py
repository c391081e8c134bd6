"""Classification heads: from a backbone's features to logits.

Shapes: B images, C classes, D features, h x w feature map, T = h * w steps, A attention features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn

from dermalyze.config.model import HeadSpec
from dermalyze.errors import UsageError

Takes = Literal["pooled", "map"]


class Head(nn.Module):
    """A head says what it takes: pooled features (B, D), or the feature map (B, D, h, w)."""

    takes: Takes = "pooled"


class PooledHead(Head):
    """A stack of layers on pooled features (B, D); gives logits (B, C)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.normalized = any(isinstance(layer, nn.BatchNorm1d) for layer in layers)

    def forward(self, pooled_BD: Tensor) -> Tensor:
        if self.training and self.normalized and pooled_BD.shape[0] == 1:
            raise UsageError("a training batch of one image cannot pass BatchNorm; drop it or merge it with the one before")
        return cast(Tensor, self.layers(pooled_BD))


class AcrnnHead(Head):
    """Attention over a recurrent reading of the feature map; see `acrnn`."""

    takes: Takes = "map"

    def __init__(self, width: int, classes: int, *, dropout: float, channels: int, hidden: int, attention: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, channels, kernel_size=3, padding=1)
        self.lstm = nn.LSTM(channels, hidden, batch_first=True)
        self.score = nn.Linear(hidden, attention)
        self.value = nn.Linear(hidden, attention)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(attention, classes)

    def forward(self, map_BDhw: Tensor) -> Tensor:
        sequence_BDT = map_BDhw.flatten(2)  # raster order: row by row, left to right
        local_BTc = torch.relu(self.conv(sequence_BDT)).transpose(1, 2)
        states_BTH, _ = self.lstm(local_BTc)
        weights_BTA = self.score(states_BTH).softmax(dim=1)
        pooled_BA = (weights_BTA * self.value(states_BTH)).sum(dim=1)
        return cast(Tensor, self.out(self.dropout(pooled_BA)))


def linear(width: int, classes: int, *, dropout: float) -> Head:
    """Dropout and one linear layer on pooled features.

    >>> linear(8, 3, dropout=0.0)(torch.zeros(2, 8)).shape
    torch.Size([2, 3])
    """
    return PooledHead(nn.Dropout(dropout), nn.Linear(width, classes))


def simple(width: int, classes: int, *, dropout: float, hidden: tuple[int, int]) -> Head:
    """The Dermalyze document's default head: (Dropout, Linear, BatchNorm, ReLU) twice, Dropout, Linear.

    Raises (in `forward`):
        UsageError: a training batch of one image, which has no variance to normalize by.

    >>> simple(8, 3, dropout=0.35, hidden=(512, 256)).eval()(torch.zeros(1, 8)).shape
    torch.Size([1, 3])
    """
    layers: list[nn.Module] = []
    for edge_in, edge_out in zip((width, hidden[0]), hidden, strict=True):
        layers += [nn.Dropout(dropout), nn.Linear(edge_in, edge_out), nn.BatchNorm1d(edge_out), nn.ReLU()]
    return PooledHead(*layers, nn.Dropout(dropout), nn.Linear(hidden[-1], classes))


def acrnn(width: int, classes: int, *, dropout: float, channels: int, hidden: int, attention: int) -> Head:
    """The Dermalyze document's ACRNN head: convolution, LSTM and attention over the cells of the feature map.

        map (B, D, h, w) -> sequence of T = h w cells in raster order (row by row)
        Conv1d D -> 128, kernel 3, padding 1 (so T stays), ReLU
        LSTM 128 -> 64, all T states
        attention: scores Linear 64 -> 16 and values Linear 64 -> 16; softmax of the scores over T, feature by feature;
                   the weighted sum of the values has 16 features
        Linear 16 -> C

    The document leaves order, padding and attention open ("Attention(64 -> 16), Linear(16 -> 7)"); this reading is fixed
    here. The last cell of a row and the first of the next are neighbours in the sequence, though not in the image.

    >>> acrnn(8, 3, dropout=0.0, channels=128, hidden=64, attention=16)(torch.zeros(1, 8, 2, 3)).shape
    torch.Size([1, 3])
    """
    return AcrnnHead(width, classes, dropout=dropout, channels=channels, hidden=hidden, attention=attention)


HEADS: dict[str, Callable[..., Head]] = {"linear": linear, "simple": simple, "acrnn": acrnn}
ON_MAP = frozenset({"acrnn"})  # kinds whose width is the map's


def build_head(spec: HeadSpec, *, pooled_width: int, map_width: int, classes: int) -> Head:
    """The head of a spec, as wide as what it takes.

    Args:
        spec: kind and fields.
        pooled_width: features of a pooled image.
        map_width: channels of the feature map.
        classes: number of classes, 2 or more.
    """
    fields = spec.model_dump(exclude={"kind"})
    width = map_width if spec.kind in ON_MAP else pooled_width
    return HEADS[spec.kind](width, classes, **fields)
