"""How an answer is made from the network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dermalyze.config.base import Spec


class InferenceSpec(Spec):
    """How a prediction is computed. A recipe is evaluated, exported and served without change."""

    recipe: Literal["plain", "flips", "tta"] = Field(
        "plain",
        description="plain: one pass; flips: mean probability over the image, its two mirror images and the half turn; tta: "
        "over the image, its two mirror images, turned by 5 degrees either way, a tenth brighter and a tenth darker",
    )
    batch_size: int = Field(64, ge=1)
    calibration: Literal["auto", "any", "none", "temperature", "prior_temperature", "vector", "isotonic", "platt"] = Field(
        "auto",
        description="calibration of the scores, selected by cross-validation; auto: among methods that keep the predicted "
        "class (none, temperature); any: among all; task multilabel: none or platt, one scale and one shift per label",
    )
    set_level: float | None = Field(
        None,
        gt=0.5,
        lt=1,
        description="coverage of the prediction sets: share of cases whose set holds the true class; null: no sets",
    )
    coverage: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the calibration split that gets a prediction; less confident cases are referred; null: all",
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _served(cls, value: object) -> object:
        if value == "mc_dropout":
            raise ValueError(
                "mc_dropout cannot be served: the exported graph has no dropout to sample; serve plain, flips or tta, and "
                "score it separately with: dermalyze score RUN --recipes mc_dropout"
            )
        return value

    ood: Literal["auto", "none", "max_softmax", "energy", "relative_mahalanobis", "knn"] = Field(
        "auto",
        description="out-of-distribution score: images unlike the training split are referred; auto: the score that separates "
        "synthetic out-of-distribution images best from the calibration split; none: no detection",
    )
