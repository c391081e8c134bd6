"""Networks of two images per sample: one backbone for both or one for each, and what training does to both.

Shapes: B samples, H x W pixels, D features of a backbone, K optional inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dermalyze.config.model import ModelSpec
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import IMAGE, PRESENT
from dermalyze.models.backbones import Backbone, create_backbone
from dermalyze.models.feature_stages import CamTarget, Stage

IMAGE_2 = "image_2"


class TwoImageBackbone(nn.Module):
    """Two images to the features of both, side by side (B, 2 D); see `two_image_backbone`.

    Attributes:
        first, second: the backbones; `second` is None where one serves both.
        missing: (D,) learned features that replace those of a second image that is missing; 0 at the start. It belongs to no
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
        """The first image's network itself."""
        return self.first.net

    def forward(self, image: Tensor) -> Tensor:
        """The feature map (B, D, h, w) of the first images (B, 3, H, W)."""
        return self.first.forward(image)

    def embed(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Pooled features of both images (B, 2 D).

        Args:
            inputs: `image` and `image_2`, normalized (B, 3, H, W), and `present` (B, 1); where the two are not given, no
                sample has a second image.
        """
        image = inputs[IMAGE]
        if IMAGE_2 not in inputs:
            first_BD = self.first.embed(image)
            return torch.cat([first_BD, self.missing.to(first_BD.dtype).expand_as(first_BD)], dim=1)
        present_B = inputs[PRESENT][:, 0].bool()
        first_BD, second_BD = self._both(image, inputs[IMAGE_2], present_B)
        second_BD = torch.where(present_B[:, None], second_BD, self.missing.to(second_BD.dtype))
        return torch.cat([first_BD, second_BD], dim=1)

    def pooled(self, map_BDhw: Tensor) -> Tensor:
        """Refused: one map is not the features of two images.

        Raises:
            ModelError: always.
        """
        raise ModelError("two images have two feature maps; use embed() instead of pooled()")

    def stages(self) -> list[Stage]:
        """Depth by depth the stage of the first backbone and, where there is one, that of the second."""
        if self.second is None:
            return self.first.stages()
        return [
            Stage(one.name, one.modules + two.modules, one.parameters + two.parameters)
            for one, two in zip(self.first.stages(), self.second.stages(), strict=True)
        ]

    def cam_target(self) -> CamTarget:
        """That of the first image's backbone."""
        return self.first.cam_target()

    def _both(self, first: Tensor, second: Tensor, present_B: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            second_BD = (self.second or self.first).embed(second)
            return self.first.embed(first), second_BD  # the first last: what is read of a module is its last call
        second = _filled(first, second, present_B)
        if self.second is not None:
            return self.first.embed(first), self.second.embed(second)
        # in one pass: BatchNorm then learns from the statistics of both kinds together, which are those that it keeps
        first_BD, second_BD = self.first.embed(torch.cat([first, second])).chunk(2)
        return first_BD, second_BD


def _filled(first: Tensor, second: Tensor, present_B: Tensor) -> Tensor:
    """Second images for a training pass; those that are missing are replaced by others of the batch.

    What comes of a replacement is not used and has no gradient; a black one would bend the statistics of BatchNorm.
    """
    there = present_B.nonzero().flatten()
    if len(there) == 0:
        return first
    row = torch.arange(len(present_B), device=present_B.device)
    return second[torch.where(present_B, row, there[row % len(there)])]


def two_image_backbone(spec: ModelSpec, *, load_weights: bool) -> TwoImageBackbone:
    """The backbone of a spec with `image_2`: one network for both images (shared), or two of one kind (separate).

        features = [f(first), g(second)];   shared: g = f;   g(second) is a learned vector where there is no second image

    Two of one kind begin from the same weights where the spec names some, else each from its own random ones.

    Raises:
        ConfigError: unknown backbone or kwargs.
        ModelError: weights that are refused or out of reach.

    Yap, Yolland & Tschandl 2018, doi:10.1111/exd.13777; Kawahara et al. 2019, doi:10.1109/JBHI.2018.2824327
    """
    first = create_backbone(spec, load_weights=load_weights)
    separate = spec.image_2 is not None and spec.image_2.kind == "separate"
    return TwoImageBackbone(first, create_backbone(spec, load_weights=load_weights) if separate else None)
