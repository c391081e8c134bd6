"""How a prediction is explained: one spec per method of `dermalyze.explain.attribution.EXPLAINERS`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from dermalyze.config.base import Spec
from dermalyze.errors import UsageError, nearest


class GradCam(Spec):
    """Channels of the last map, each weighted by its mean gradient."""

    kind: Literal["gradcam"] = "gradcam"


class GradCamPlusPlus(Spec):
    """Channels weighted by their positive gradients, so that repeated structures all count."""

    kind: Literal["gradcam++"] = "gradcam++"


class LayerCam(Spec):
    """Every position of every channel, weighted by its own positive gradient."""

    kind: Literal["layercam"] = "layercam"


class ClosedForm(Spec):
    """Grad-CAM without a backward pass: weights from the head alone."""

    kind: Literal["closed_form"] = "closed_form"


class Rollout(Spec):
    """Attention of all layers multiplied; the same for every class."""

    kind: Literal["rollout"] = "rollout"


class GradientAttention(Spec):
    """Attention of all layers, each weighted by its positive gradient."""

    kind: Literal["gradient_attention"] = "gradient_attention"


class IntegratedGradients(Spec):
    """Integrated gradients from the image's mean color to the image."""

    kind: Literal["integrated_gradients"] = "integrated_gradients"
    steps: int = Field(16, ge=2, le=1000, description="points of the integral (Gauss-Legendre)")


class Occlusion(Spec):
    """Drop of the class probability when a window is filled with the image's mean color."""

    kind: Literal["occlusion"] = "occlusion"
    window: float = Field(0.2, gt=0, lt=1, description="edge of the window, share of the image's edge")
    stride: float = Field(0.1, gt=0, lt=1, description="step of the window, share of the image's edge, at most the window")


Method = Annotated[
    GradCam | GradCamPlusPlus | LayerCam | ClosedForm | Rollout | GradientAttention | IntegratedGradients | Occlusion,
    Field(discriminator="kind"),
]
METHODS = (
    "gradcam", "gradcam++", "layercam", "closed_form", "rollout", "gradient_attention", "integrated_gradients", "occlusion",
)  # fmt: skip


def method_spec(name: str) -> Method:
    """The spec of a method by its name, with its defaults.

    Raises:
        UsageError: no such method.

    >>> method_spec("occlusion").window
    0.2
    >>> method_spec("gradcan")
    Traceback (most recent call last):
    ...
    dermalyze.errors.UsageError: --methods gradcan: must be one of gradcam, ...; did you mean 'gradcam'?
    """
    try:
        found: Method = TypeAdapter(Method).validate_python({"kind": name})
    except ValidationError:
        raise UsageError(f"--methods {name}: must be one of {', '.join(METHODS)}{nearest(name, METHODS)}") from None
    return found
