"""Networks that timm does not have, in timm's dialect.

Shapes: B images, H x W pixels, D features, h x w feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

from torch import Tensor, nn


@dataclass(frozen=True)
class InputConfig:
    """What a backbone was trained on.

    Attributes:
        size: (height, width), px.
        mean: of RGB in 0..1.
        std: of RGB in 0..1, above 0.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class CustomNetwork(nn.Module):
    """A network that timm does not have: it speaks timm's dialect (`forward_features`, `forward_head`, `num_features`).

    Attributes:
        config: the input it was made for.
    """

    config: ClassVar[InputConfig]

    def group_matcher(self, coarse: bool = True) -> Callable[[str], int]:
        """From the name of a parameter to its part of the network, 0 the stem."""
        raise NotImplementedError


class TinyCnn(CustomNetwork):
    """Four blocks of convolution, BatchNorm and ReLU: a network for demonstrations and tests, no weights exist.

    A stem of stride 2 and a halving before each later block make the map 1/16 of the image. 137,112 parameters with
    the default channels.

    Args:
        channels: of each block, four or any other number.
    """

    config = InputConfig((96, 96), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, channels: Sequence[int] = (24, 48, 96, 96)) -> None:
        super().__init__()
        layers = self._block(3, channels[0], kernel=5, stride=2)
        for edge_in, edge_out in pairwise(channels):
            layers += [nn.MaxPool2d(2), *self._block(edge_in, edge_out, kernel=3, stride=1)]
        self.layers = nn.Sequential(*layers)
        self.num_features = channels[-1]

    @staticmethod
    def _block(edge_in: int, edge_out: int, *, kernel: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(edge_in, edge_out, kernel, stride, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        return [conv, nn.BatchNorm2d(edge_out), nn.ReLU(inplace=True)]

    def group_matcher(self, coarse: bool = True) -> Callable[[str], int]:
        return lambda name: int(name.split(".")[1]) // 4  # convolution, norm, ReLU, pooling

    def forward_features(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.layers(images))

    def forward_head(self, map_BDhw: Tensor, pre_logits: bool = True) -> Tensor:
        return map_BDhw.mean(dim=(2, 3))


class CustomCnn(CustomNetwork):
    """The custom CNN of the HAM10000 comparison, as drawn: four blocks of convolution 3x3, BatchNorm, ReLU, max-pooling 2x2.

        3 -> 64 -> 128 -> 256 -> 512 channels, 224 -> 14 px; flatten 512 x 14 x 14, Linear 512, ReLU, Linear 128, ReLU

    The last layer, 128 to the classes, is head `linear`. 53.0 M parameters at 224 px, nearly all of them in the first linear
    layer; the 12.5 M that another document gives it are not this network's.

    Args:
        img_size: edge of a square or (height, width), px; the network takes no other. Each edge at least 16.
    """

    config = InputConfig((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    channels = (64, 128, 256, 512)
    head_hidden_size = 128

    def __init__(self, img_size: int | Sequence[int] = 224) -> None:
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self._build(512 * (height // 16) * (width // 16))
        self.size: tuple[int, int] | None = (height, width)

    def _build(self, flat: int) -> None:
        if flat < 1:
            raise ValueError("img_size must be 16 px or more, for four halvings")
        edges = pairwise((3, *self.channels))
        self.blocks = nn.Sequential(*(self._block(edge_in, edge_out) for edge_in, edge_out in edges))
        self.neck = nn.Sequential(nn.Linear(flat, 512), nn.ReLU(), nn.Linear(512, self.head_hidden_size), nn.ReLU())
        self.num_features = self.channels[-1]

    @staticmethod
    def _block(edge_in: int, edge_out: int) -> nn.Sequential:
        conv = nn.Conv2d(edge_in, edge_out, 3, padding=1)
        return nn.Sequential(conv, nn.BatchNorm2d(edge_out), nn.ReLU(inplace=True), nn.MaxPool2d(2))

    def group_matcher(self, coarse: bool = True) -> Callable[[str], int]:
        return lambda name: int(name.split(".")[1]) if name.startswith("blocks.") else len(self.channels)

    def forward_features(self, images: Tensor) -> Tensor:
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            found, own = ("x".join(map(str, size)) for size in (images.shape[2:], self.size))
            raise ValueError(f"the flattened map is that of {own} px, not {found}; write model.kwargs: {{img_size: ...}}")
        return cast(Tensor, self.blocks(images))

    def forward_head(self, map_BDhw: Tensor, pre_logits: bool = True) -> Tensor:
        return cast(Tensor, self.neck(map_BDhw.flatten(1)))


class CustomCnnGap(CustomCnn):
    """`CustomCnn` for any size from 16 px: the map's mean in place of the flattened map. 1.9 M parameters."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self._build(self.channels[-1])
        self.size = None

    def forward_head(self, map_BDhw: Tensor, pre_logits: bool = True) -> Tensor:
        return cast(Tensor, self.neck(map_BDhw.mean(dim=(2, 3))))


OWN: dict[str, type[CustomNetwork]] = {"tiny_cnn": TinyCnn, "custom_cnn": CustomCnn, "custom_cnn_gap": CustomCnnGap}
