"""CvT, which timm does not have. The only file that imports transformers.

Shapes: B images, N tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dermalyze.errors import MissingExtraError
from dermalyze.models import torch_guard
from dermalyze.models.custom_cnn import CustomNetwork, InputConfig


class Cvt(CustomNetwork):
    """CvT, the Convolutional Vision Transformer, through transformers; CvT-13 by default.

    Its features are the class token and the last map's places in raster order.

    Args:
        settings: of `transformers.CvtConfig`.

    Wu et al. 2021, arXiv:2103.15808
    """

    config = InputConfig((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    num_prefix_tokens = 1

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        torch_guard.install()
        try:
            from transformers import CvtConfig, CvtModel
        except ModuleNotFoundError as error:
            raise MissingExtraError("CvT", "hf") from error
        config: Any = CvtConfig()
        if unknown := sorted(settings.keys() - config.to_dict().keys()):
            raise TypeError(f"unexpected keyword argument '{unknown[0]}'")
        config = CvtConfig(**settings)
        self.network = CvtModel(config)
        self.norm = nn.LayerNorm(config.embed_dim[-1])
        self.num_features = int(config.embed_dim[-1])
        self.kernels = [*zip(config.patch_sizes, config.patch_stride, config.patch_padding, strict=True)]

    def group_matcher(self, coarse: bool = True) -> Callable[[str], int]:
        def part(name: str) -> int:
            if not name.startswith("network."):
                return len(self.kernels)  # the closing norm
            stage, what = name.removeprefix("network.encoder.stages.").split(".")[:2]
            return int(stage) + (stage != "0" or what != "embedding")

        return part

    @property
    def blocks(self) -> list[nn.Module]:
        return list(cast(nn.ModuleList, self.network.encoder.stages[-1].layers))

    def token_grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the last map."""
        for kernel, stride, padding in self.kernels:
            size = ((size[0] + 2 * padding - kernel) // stride + 1, (size[1] + 2 * padding - kernel) // stride + 1)
        return size

    def forward_features(self, images: Tensor) -> Tensor:
        out = self.network(images)
        return torch.cat([out.cls_token_value, out.last_hidden_state.flatten(2).transpose(1, 2)], dim=1)

    def forward_head(self, tokens_BND: Tensor, pre_logits: bool = True) -> Tensor:
        return cast(Tensor, self.norm(tokens_BND[:, 0]))
