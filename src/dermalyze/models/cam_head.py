"""Class-activation maps in closed form: the gradient of the logits by the pooled features, written as forward operations.

Where an embedding is the mean of the last map, the share of each place in each logit is known without differentiating:

    e = mean_hw A,   J = d logits / d e,   M_c(h, w) = sum_d J_cd A_d(h, w),   mean_hw M_c = (J e)_c

Head `linear`: J is its weight, so mean M_c + bias_c is the logit itself (Zhou et al. 2016, arXiv:1512.04150). Head `simple`
is linear on each side of its ReLUs: J is the product of its layers, with the rows of closed ReLUs left out. The values are
those of Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) before its ReLU, times h w: there too the weights are the mean
gradient.

Shapes: B images, C classes, D features, K features of a layer, M encoded metadata, h x w map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from dermalyze.errors import ModelError
from dermalyze.imaging.samples import IMAGE, METADATA, as_batch
from dermalyze.models.backbones import Backbone
from dermalyze.models.classifier import Classifier
from dermalyze.models.fusion import FusedHead, Late
from dermalyze.models.heads import Head, PooledHead
from dermalyze.models.two_images import TwoImageBackbone

SAME = 1e-4  # relative difference up to which pooled features are taken for the mean of the map
TRIAL_SIZES = ((3, 4), (2, 2))


class ClosedForm(nn.Module):
    """A classifier with the class-activation map as a further output.

    Args:
        network: in evaluation mode, with `reason_against(network)` None.
    """

    def __init__(self, network: Classifier) -> None:
        super().__init__()
        self.network = network

    def forward_with_embedding(self, inputs: Mapping[str, Tensor] | Tensor) -> tuple[Tensor, Tensor]:
        """As the network's own."""
        return self.network.forward_with_embedding(inputs)

    def forward_with_cam(self, inputs: Mapping[str, Tensor] | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, C), embedding (B, D) and the map (B, C, h, w), signed, in units of logits."""
        inputs = as_batch(inputs)
        embedding_BD, map_BDhw = _single(self.network).embed_with_map(inputs[IMAGE])
        jacobian_BCD = head_jacobian(_image_head(self.network.head), embedding_BD)
        cam_BChw = torch.einsum("bcd,bdhw->bchw", jacobian_BCD, map_BDhw)
        return self.network.classify(embedding_BD, inputs.get(METADATA)), embedding_BD, cam_BChw


def head_jacobian(head: PooledHead, pooled_BD: Tensor) -> Tensor:
    """The derivative (B, C, D) of a head's logits by the pooled features, in evaluation mode.

    Raises:
        ModelError: a layer that is neither linear, BatchNorm, ReLU nor dropout.

    >>> head = PooledHead(nn.Linear(2, 3, bias=False)).eval()
    >>> bool((head_jacobian(head, torch.ones(1, 2))[0] == head.layers[0].weight).all())
    True
    """
    steps: list[tuple[str, Tensor]] = []
    value_BK = pooled_BD
    for layer in head.layers:
        if isinstance(layer, nn.Dropout):
            continue
        if isinstance(layer, nn.Linear):
            steps.append(("linear", layer.weight))
        elif isinstance(layer, nn.BatchNorm1d):
            steps.append(("scale", batch_norm_scale(layer)))
        elif isinstance(layer, nn.ReLU):
            steps.append(("mask", (value_BK > 0).to(pooled_BD.dtype)))
        else:
            raise ModelError(f"a head with {type(layer).__name__} has no closed-form map; use head linear or simple")
        value_BK = layer(value_BK)
    (_, last_CK), *before = reversed(steps)
    jacobian_BCK = last_CK.unsqueeze(0).expand(pooled_BD.shape[0], -1, -1)
    for kind, factor in before:  # from the logits down, so that no product is larger than (B, C, K)
        if kind == "linear":
            jacobian_BCK = jacobian_BCK @ factor
        else:
            jacobian_BCK = jacobian_BCK * (factor if kind == "scale" else factor.unsqueeze(1))
    return jacobian_BCK


def batch_norm_scale(layer: nn.BatchNorm1d) -> Tensor:
    """What BatchNorm in evaluation mode multiplies each of K features by."""
    deviation_K = torch.sqrt(cast(Tensor, layer.running_var) + layer.eps)
    return layer.weight / deviation_K if layer.affine else 1 / deviation_K


def reason_against(network: nn.Module) -> str | None:
    """Why a network has no closed-form map; None where it has one.

    The pooled path is evaluated by its numbers: random maps of several sizes must be pooled to their mean.
    """
    if not isinstance(network, Classifier):
        return "not a backbone with a head"
    if isinstance(network.backbone, TwoImageBackbone):
        return "a sample has two images"
    if not isinstance(network.head, PooledHead | Late) or not isinstance(_image_head(network.head), PooledHead):
        fused = isinstance(network.head, FusedHead)
        return "metadata are mixed with the features" if fused else "the head takes the map, not its mean"
    kinds = nn.Dropout | nn.Linear | nn.BatchNorm1d | nn.ReLU
    layers = [*_image_head(network.head).layers]
    if not all(isinstance(layer, kinds) for layer in layers) or not isinstance(layers[-1], nn.Linear):
        return "the head has a layer that is not linear on either side of a ReLU"
    backbone = network.backbone
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.inference_mode():
            for rows, columns in TRIAL_SIZES:
                map_BDhw = 3 * torch.randn(2, backbone.map_width, rows, columns, generator=generator)
                mean_BD, pooled_BD = map_BDhw.mean(dim=(2, 3)), backbone.pooled(map_BDhw)
                if pooled_BD.shape != mean_BD.shape or not torch.allclose(pooled_BD, mean_BD, rtol=SAME, atol=SAME):
                    return "the pooled features are not the mean of the last map"
    except ModelError:
        return "the backbone pools tokens, not a map"
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
        return "the pooled features are not the mean of a map of any size"
    return None


def map_size(network: Classifier, height: int, width: int) -> tuple[int, int]:
    """(h, w) of the map of an image of (height, width) pixels."""
    with torch.inference_mode():
        rows, columns = _single(network).embed_with_map(torch.zeros(1, 3, height, width))[1].shape[2:]
    return rows, columns


def cam_record(against: str | None, size: tuple[int, int] | None = None) -> dict[str, str | int]:
    """What `artifact.json` says of the map: its (height, width), or why there is none.

    >>> cam_record("the backbone pools tokens, not a map")
    {'kind': 'none', 'reason': 'the backbone pools tokens, not a map', 'height': 0, 'width': 0}
    """
    if size is None:
        return {"kind": "none", "reason": against or "not computed", "height": 0, "width": 0}
    reason = "the head's exact Jacobian by the mean of the last map, times that map"
    return {"kind": "closed_form", "reason": reason, "height": size[0], "width": size[1]}


def _single(network: Classifier) -> Backbone:
    """The backbone of a network of one image per sample."""
    return cast(Backbone, network.backbone)


def _image_head(head: Head) -> PooledHead:
    """The head of the image's part: late fusion adds what metadata say, which has no place in the image."""
    return cast(PooledHead, head.head if isinstance(head, Late) else head)
