"""How an answer is made from the network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dermalyze.config.base import Spec


class InferenceSpec(Spec):
    """How an answer is made from the network. A recipe is measured, exported and served as one thing."""

    recipe: Literal["plain", "flips", "tta"] = Field(
        "plain",
        description="plain: one pass; flips: mean probability over the image, its two mirror images and the half turn; tta: "
        "over the image, its two mirror images, turned by 5 degrees either way, a tenth brighter and a tenth darker",
    )
    batch_size: int = Field(64, ge=1)
    calibration: Literal["auto", "any", "none", "temperature", "prior_temperature", "vector", "isotonic", "platt"] = Field(
        "auto",
        description="from scores to probabilities, chosen by cross-validation: auto: of those that change no answer, only how "
        "sure it is (none, temperature); any: of all; task multilabel: none or platt, a scale and a shift for each label",
    )
    set_level: float | None = Field(
        None,
        gt=0.5,
        lt=1,
        description="answers also name a set that holds the right class in this share of cases; null: none",
    )
    coverage: float | None = Field(
        None, gt=0, le=1, description="share of the calibration part that is answered; what is less sure is referred; null: all"
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _served(cls, value: object) -> object:
        if value == "mc_dropout":
            raise ValueError(
                "mc_dropout cannot be served: the exported graph has no dropout to draw; serve plain, flips or tta, and "
                "measure it beside that with: dermalyze score RUN --recipes mc_dropout"
            )
        return value

    ood: Literal["auto", "none", "max_softmax", "energy", "relative_mahalanobis", "knn"] = Field(
        "auto",
        description="score by which pictures unlike the training part are referred; auto: the one that tells the synthetic "
        "foreign pictures best from the calibration part; none: none are",
    )
