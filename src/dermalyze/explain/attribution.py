"""Explanations of a network's answers: one table of methods, and the one function that asks them.

Shapes: B images, H x W pixels, C classes, h x w map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dermalyze.config.explain import IntegratedGradients, Method, Occlusion, method_spec
from dermalyze.errors import MissingExtraError, ModelError, UsageError, nearest
from dermalyze.explain.attention import gradient_attention, rollout
from dermalyze.explain.cams import Answer, Question, closed_form, gradcam, gradcam_plus_plus, layercam
from dermalyze.imaging.samples import IMAGE, as_batch, take
from dermalyze.models.classifier import Classifier
from dermalyze.models.feature_stages import CamTarget
from dermalyze.models.watching import evaluating


@dataclass(frozen=True, eq=False)
class Explained:
    """Maps of a batch, on the CPU, in the network's own scale: nothing is stretched to 0..1.

    Attributes:
        maps: (B, H, W) float32, upsampled; above 0 speaks for the class, below 0 (signed maps alone) against it. All 0 where
            nothing speaks for the class.
        grid: (B, h, w) float32, before that.
        logits: (B, C) float32 of the same pass.
        classes: (B,) int64, what is explained.
    """

    maps: Tensor
    grid: Tensor
    logits: Tensor
    classes: Tensor


def integrated_gradients(question: Question) -> Answer:
    """Integrated gradients from the image's mean color, summed over the colors.

    Sundararajan et al. 2017, arXiv:1703.01365; computed by captum
    """
    assert isinstance(question.spec, IntegratedGradients)
    captum, (logits_BC, classes_B) = _captum("integrated_gradients"), _answered(question)
    found = captum.IntegratedGradients(question.answer).attribute(
        question.images,
        baselines=_mean_colour(question.images),
        target=classes_B,
        additional_forward_args=question.beside or None,
        n_steps=question.spec.steps,
        internal_batch_size=max(len(question.images), 64),
    )
    return question.side(found.detach().sum(dim=1)), logits_BC


def occlusion(question: Question) -> Answer:
    """What the class's logit loses when a window is painted in the image's mean color, averaged over the windows at a place.

    Zeiler & Fergus 2014, arXiv:1311.2901; computed by captum
    """
    assert isinstance(question.spec, Occlusion)
    captum, (logits_BC, classes_B) = _captum("occlusion"), _answered(question)
    window = [max(1, round(question.spec.window * edge)) for edge in question.size]
    step = [max(1, min(round(question.spec.stride * edge), wide)) for edge, wide in zip(question.size, window, strict=True)]
    with torch.no_grad():
        found = captum.Occlusion(question.answer).attribute(
            question.images,
            sliding_window_shapes=(3, *window),
            strides=(3, *step),
            baselines=_mean_colour(question.images),
            target=classes_B,
            additional_forward_args=question.beside or None,
            perturbations_per_eval=max(1, 128 // len(question.images)),
        )
    return question.side(found.detach().mean(dim=1)), logits_BC


def _captum(method: str) -> Any:
    try:
        import captum.attr
    except ModuleNotFoundError as error:
        raise MissingExtraError(method, "explain") from error
    return captum.attr


def _mean_colour(images: Tensor) -> Tensor:
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def _answered(question: Question) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        logits_BC = question.answer(question.images)
    return logits_BC, question.chosen(logits_BC)


EXPLAINERS: dict[str, Callable[[Question], Answer]] = {
    "gradcam": gradcam,
    "gradcam++": gradcam_plus_plus,
    "layercam": layercam,
    "closed_form": closed_form,
    "rollout": rollout,
    "gradient_attention": gradient_attention,
    "integrated_gradients": integrated_gradients,
    "occlusion": occlusion,
}
LAYERED = frozenset({"gradcam", "gradcam++", "layercam"})
"""Methods that can read any layer."""


def explain_batch(
    model: Classifier,
    inputs: Mapping[str, Tensor] | Tensor,
    method: str | Method,
    classes: int | Sequence[int] | Tensor | None = None,
    *,
    layer: str | None = None,
    signed: bool = False,
) -> Explained:
    """Where in each image the network sees a class, by one method. The model is left as it was found.

    Args:
        model: in any mode; it is asked in evaluation mode.
        inputs: as the network takes them, on its device; the image is explained. Images alone may come as a tensor.
        method: a key of `EXPLAINERS`, or its spec.
        classes: class of all images, or of each, 0..C-1; None: what the network answers.
        layer: dotted name of a module in `model.backbone.net`, for gradcam, gradcam++ and layercam; None: `cam_target()`.
        signed: keep what speaks against the class, as negative values; attention has no such side.

    Raises:
        UsageError: no such method, class or layer.
        ModelError: the method does not fit the network; with the reason and what to use instead.
        MissingExtraError: integrated gradients or occlusion without captum.

    >>> from dermalyze.config.model import ModelSpec
    >>> from dermalyze.models.classifier import build_classifier
    >>> model = build_classifier(ModelSpec(backbone="tiny_cnn"), 3, load_weights=False)
    >>> found = explain_batch(model, torch.zeros(2, 3, 32, 48), "gradcam", 1)
    >>> found.maps.shape, found.grid.shape, found.classes.tolist()
    (torch.Size([2, 32, 48]), torch.Size([2, 2, 3]), [1, 1])
    """
    spec = method_spec(method) if isinstance(method, str) else method
    if layer is not None and spec.kind not in LAYERED:
        raise UsageError(f"layer {layer}: {spec.kind} reads no single layer; leave it out, or use {', '.join(sorted(LAYERED))}")
    inputs = as_batch(inputs)
    images = inputs[IMAGE]
    chosen_B = class_indices(classes, len(images), model.classes, images.device)
    question = Question(model, inputs, chosen_B, read_at(model, layer), signed, spec)
    with evaluating(model):
        grid_Bhw, logits_BC = EXPLAINERS[spec.kind](question)
    maps = nn.functional.interpolate(grid_Bhw[:, None].float(), question.size, mode="bilinear", align_corners=False)[:, 0]
    chosen = question.chosen(logits_BC)
    return Explained(maps.cpu(), grid_Bhw.float().cpu(), logits_BC.float().cpu(), chosen.cpu())


def class_indices(classes: int | Sequence[int] | Tensor | None, images: int, known: int, device: torch.device) -> Tensor | None:
    """(B,) int64 class of each image, or None where the network's own answer is asked.

    Raises:
        UsageError: another number of them, or one that the network does not have.
    """
    if classes is None:
        return None
    found = torch.as_tensor(classes, device=device).long().reshape(-1)
    found = found.expand(images) if found.numel() == 1 else found
    if len(found) != images or bool(((found < 0) | (found >= known)).any()):
        raise UsageError(f"classes {found.tolist()[:8]} of {images} images: give one, or one per image, of 0..{known - 1}")
    return found


def read_at(model: Classifier, layer: str | None) -> CamTarget:
    """Where maps are read: the network's own place, or a module of it by name.

    Raises:
        UsageError: no such module.
    """
    target = model.cam_target()
    if layer is None:
        return target
    names = [name for name, _ in model.backbone.net.named_modules() if name]
    if layer not in names:
        raise UsageError(
            f"layer {layer!r}: the network has no such module{nearest(layer, names)}; it has {', '.join(names[:8])}, ..."
        )
    return replace(target, module=model.backbone.net.get_submodule(layer))


def refusal(model: Classifier, inputs: Mapping[str, Tensor] | Tensor, method: str | Method) -> str | None:
    """Why a method does not fit a network, found by asking it about one image; None if it does."""
    try:
        explain_batch(model, take(as_batch(inputs), slice(1)), method)
    except (ModelError, MissingExtraError) as error:
        return str(error)
    return None
