"""Class-activation maps: channels of a feature map, weighted by what they do for one class.

Shapes: B images, H x W pixels, C classes, D channels, h x w feature map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from dermalyze.config.explain import Method
from dermalyze.errors import ModelError
from dermalyze.imaging.samples import IMAGE
from dermalyze.models.classifier import Classifier
from dermalyze.models.feature_stages import CamTarget
from dermalyze.models.watching import cut_at


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be explained.

    Attributes:
        model: in evaluation mode.
        inputs: as the network takes them; the image, normalized (B, 3, H, W), is explained, the others stay as they are.
        classes_B: class of each image; None: the one with the largest logit.
        read: where maps are read.
        signed: keep what speaks against the class, as negative values.
        spec: of the method.
    """

    model: Classifier
    inputs: Mapping[str, Tensor]
    classes_B: Tensor | None
    read: CamTarget
    signed: bool
    spec: Method

    @property
    def images(self) -> Tensor:
        """Normalized (B, 3, H, W)."""
        return self.inputs[IMAGE]

    @property
    def beside(self) -> tuple[Tensor, ...]:
        """The other inputs, in their order."""
        return tuple(values for name, values in self.inputs.items() if name != IMAGE)

    def answer(self, images: Tensor, *beside: Tensor) -> Tensor:
        """Logits (B, C) of other images in place of the explained ones, and of other inputs in the order of `beside`."""
        others = zip((name for name in self.inputs if name != IMAGE), beside or self.beside, strict=True)
        return cast(Tensor, self.model({IMAGE: images, **dict(others)}))

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def chosen(self, logits_BC: Tensor) -> Tensor:
        """(B,) class of each image."""
        return logits_BC.detach().argmax(dim=1) if self.classes_B is None else self.classes_B

    def score(self, logits_BC: Tensor) -> Tensor:
        """The logits of the chosen classes, summed: in evaluation mode images do not touch each other."""
        return logits_BC.gather(1, self.chosen(logits_BC)[:, None]).sum()

    def side(self, map_Bhw: Tensor) -> Tensor:
        """The map, or what of it speaks for the class."""
        return map_Bhw if self.signed else map_Bhw.relu()


Answer = tuple[Tensor, Tensor]
"""A map (B, h, w) and the logits (B, C)."""


def gradients(question: Question) -> tuple[Tensor, Tensor, Tensor]:
    """The map that is read, the gradient of the score in it, both (B, D, h, w), and the logits (B, C).

    Raises:
        ModelError: what is read is no map, or the score does not hang on it.
    """
    try:
        with cut_at(question.read.module) as seen:
            logits_BC = question.answer(question.images)
            if not seen:
                raise ModelError("the layer that is read takes no part in the answer; choose another layer")
            (slope,) = torch.autograd.grad(question.score(logits_BC), seen, allow_unused=True)
        if slope is None:
            raise ModelError("the answer does not hang on the layer that is read; choose another layer")
        read, sloped = (question.read.as_map(tensor.detach(), question.size) for tensor in (seen[0], slope))
    except ValueError as error:
        raise ModelError(f"the layer that is read {error}; choose another layer") from error
    return read, sloped, logits_BC.detach()


def gradcam(question: Question) -> Answer:
    """Grad-CAM: channels weighted by the mean of their gradients.

        map_hw = sum_D mean_hw(d score / d A_D) A_Dhw

    Selvaraju et al. 2017, arXiv:1610.02391
    """
    read, slope, logits_BC = gradients(question)
    return question.side((slope.mean(dim=(2, 3), keepdim=True) * read).sum(dim=1)), logits_BC


def gradcam_plus_plus(question: Question) -> Answer:
    """Grad-CAM++: channels weighted by their positive gradients, each place by how the class's exponential curves there.

        a_Dhw = g^2 / (2 g^2 + sum_hw(relu A_D) g^3),   map_hw = sum_D (sum_hw a relu(g)) A_Dhw

    The paper's maps end in a ReLU. For those that do not, the sum is taken over the positive places, without which the
    denominator passes through 0.

    Chattopadhay et al. 2018, arXiv:1710.11063
    """
    read, slope, logits_BC = gradients(question)
    below = 2 * slope.square() + read.relu().sum(dim=(2, 3), keepdim=True) * slope.pow(3)
    share = torch.where(below == 0, torch.zeros_like(slope), slope.square() / torch.where(below == 0, 1, below))
    weights = (share * slope.relu()).sum(dim=(2, 3), keepdim=True)
    return question.side((weights * read).sum(dim=1)), logits_BC


def layercam(question: Question) -> Answer:
    """LayerCAM: every place of every channel weighted by its own positive gradient, which also serves early layers.

        map_hw = sum_D relu(d score / d A_Dhw) A_Dhw        (signed: without the relu)

    Jiang et al. 2021, doi:10.1109/TIP.2021.3089943
    """
    read, slope, logits_BC = gradients(question)
    return question.side(((slope if question.signed else slope.relu()) * read).sum(dim=1)), logits_BC


def closed_form(question: Question) -> Answer:
    """The class-activation map of a head on the map's mean, without a pass backwards through the network.

        map_hw = sum_D (d score / d mean_hw A_D) A_Dhw,     in units of the logit

    The answer is f(mean A), so every place of a channel has the same gradient f'(mean A) / (h w), and the head alone is
    differentiated. For a linear head this is the map of Zhou et al.; for every head on the mean it is Grad-CAM's,
    times h w.

    Raises:
        ModelError: the network pools tokens, or its places have gradients of their own.

    Zhou et al. 2016, arXiv:1512.04150
    """
    model = question.model
    name = type(model.backbone.net).__name__
    if hasattr(model.backbone.net, "num_prefix_tokens") and model.head.takes == "pooled":
        raise ModelError(f"closed_form: {name} pools tokens, and its class is no function of the map's mean; use gradcam")
    read, slope, logits_BC = gradients(question)
    first = slope[:, :, :1, :1]
    if not torch.allclose(slope, first.expand_as(slope), rtol=1e-3, atol=1e-5 * float(slope.abs().max())):
        what = f"head {type(model.head).__name__}" if model.head.takes == "map" else name
        raise ModelError(f"closed_form: {what} tells the map's places apart and does not see their mean alone; use gradcam")
    places = read.shape[2] * read.shape[3]
    return question.side(places * (first * read).sum(dim=1)), logits_BC
