"""Networks of two pictures a case: one backbone for both or one for each, and what training does to both.

Shapes: B cases, H x W pixels, D features of a backbone. Cases are those of `imaging.cases`: 7 planes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dermalyze.config.model import ModelSpec
from dermalyze.errors import ModelError
from dermalyze.imaging.cases import PLANES
from dermalyze.models.backbones import Backbone, create_backbone
from dermalyze.models.feature_stages import CamTarget, Stage

WHOLE = 0.999
"""Where mixup or cutmix blends a case with one that has no second picture, the blend has none either."""


class PairBackbone(nn.Module):
    """Two pictures to the features of both, side by side (B, 2 D); see `pair_backbone`.

    Attributes:
        first, second: the backbones; `second` is None where one serves both.
        missing: (D,) learned features that stand for a second picture that is not there; 0 at the start. It belongs to no
            stage, as the head does.
        width: 2 D.
        map_width, default_size, mean, std, channels, net: of the first.
    """

    def __init__(self, first: Backbone, second: Backbone | None) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.missing = nn.Parameter(torch.zeros(first.width))
        self.width, self.map_width, self.channels = 2 * first.width, first.map_width, first.channels
        self.default_size, self.mean, self.std = first.default_size, first.mean, first.std

    @property
    def net(self) -> nn.Module:
        """The first picture's network itself."""
        return self.first.net

    def forward(self, cases: Tensor) -> Tensor:
        """The feature map (B, D, h, w) of the first pictures."""
        return self.first.forward(cases[:, :3])

    def embed(self, cases: Tensor) -> Tensor:
        """Pooled features of both pictures (B, 2 D).

        Args:
            cases: normalised (B, 7, H, W); or (B, 3, H, W), first pictures of cases that have no second one.
        """
        first_B3HW = cases[:, :3]
        if cases.shape[1] != PLANES:
            first_BD = self.first.embed(first_B3HW)
            return torch.cat([first_BD, self.missing.to(first_BD.dtype).expand_as(first_BD)], dim=1)
        known_B = cases[:, 6].amin(dim=(1, 2)) > WHOLE
        first_BD, second_BD = self._both(first_B3HW, cases[:, 3:6], known_B)
        second_BD = torch.where(known_B[:, None], second_BD, self.missing.to(second_BD.dtype))
        return torch.cat([first_BD, second_BD], dim=1)

    def pooled(self, map_BDhw: Tensor) -> Tensor:
        """Refused: one map is not the features of two pictures.

        Raises:
            ModelError: always.
        """
        raise ModelError("two pictures have two feature maps; use embed() instead of pooled()")

    def stages(self) -> list[Stage]:
        """Depth by depth the stage of the first backbone and, where there is one, that of the second."""
        if self.second is None:
            return self.first.stages()
        return [
            Stage(one.name, one.modules + two.modules, one.parameters + two.parameters)
            for one, two in zip(self.first.stages(), self.second.stages(), strict=True)
        ]

    def cam_target(self) -> CamTarget:
        """That of the first picture's backbone."""
        return self.first.cam_target()

    def _both(self, first: Tensor, second: Tensor, known_B: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.first.embed(first), (self.second or self.first).embed(second)
        second = _filled(first, second, known_B)
        if self.second is not None:
            return self.first.embed(first), self.second.embed(second)
        # in one pass: BatchNorm then learns from the statistics of both kinds together, which are those that it keeps
        first_BD, second_BD = self.first.embed(torch.cat([first, second])).chunk(2)
        return first_BD, second_BD


def _filled(first: Tensor, second: Tensor, known_B: Tensor) -> Tensor:
    """Second pictures for a training pass, those that are missing stood in for by others of the batch.

    What comes of a stand-in is not used and has no gradient; a black one would bend the statistics of BatchNorm.
    """
    there = known_B.nonzero().flatten()
    if len(there) == 0:
        return first
    row = torch.arange(len(known_B), device=known_B.device)
    return second[torch.where(known_B, row, there[row % len(there)])]


def pair_backbone(spec: ModelSpec, *, load_weights: bool) -> PairBackbone:
    """The backbone of a spec with `second`: one network for both pictures (shared), or two of one kind (separate).

        features = [f(first), g(second)];   shared: g = f;   g(second) is a learned vector where there is no second picture

    Two of one kind begin from the same weights where the spec names some, else each from its own random ones.

    Raises:
        ConfigError: unknown backbone or kwargs.
        ModelError: weights that are refused or out of reach.

    Yap, Yolland & Tschandl 2018, doi:10.1111/exd.13777; Kawahara et al. 2019, doi:10.1109/JBHI.2018.2824327
    """
    first = create_backbone(spec, load_weights=load_weights)
    separate = spec.second is not None and spec.second.kind == "separate"
    return PairBackbone(first, create_backbone(spec, load_weights=load_weights) if separate else None)
