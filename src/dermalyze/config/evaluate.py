"""How results are summarized."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dermalyze.config.base import Spec

Share = Annotated[float, Field(gt=0.5, lt=1)]


class EvaluateSpec(Spec):
    """How results are summarized."""

    resamples: int = Field(2000, ge=100, description="number of bootstrap resamples, over groups")
    level: float = Field(0.95, gt=0.5, lt=1, description="confidence level of the intervals")
    set_level: float = Field(0.9, gt=0.5, lt=1, description="target coverage of the conformal sets in the report")
    ece_bins: int = Field(15, ge=2, le=100, description="equal-width bins of the expected calibration error")
    malignant: Literal["auto"] | list[str] | None = Field(
        "auto",
        description="classes that count as malignant or precancer, for the two-class view; auto: recognized by name, such as "
        "mel, bcc and akiec of HAM10000; null: no such view",
    )
    focus: Literal["auto"] | list[str] | None = Field(
        "auto",
        description="classes to watch: each has its sensitivity beside the headline metrics, its operating points and its "
        "missed images; the first one also in subgroups and selective prediction; auto: recognized by name, such as mel of "
        "HAM10000; null: none",
    )
    sensitivity: tuple[Share, ...] = Field(
        (0.95, 0.9),
        min_length=1,
        description="sensitivities of the operating points, one or several; a model is served at the first unless "
        "`--sensitivity` names another",
    )
    miss_cost: float = Field(10.0, gt=0, description="cost of a miss in false alarms, for the cost-weighted operating point")
    sensitivity_floor: float = Field(
        0.8, ge=0, lt=1, description="the partial AUROC is the area above this sensitivity; 0.8 as in ISIC 2024"
    )
    prevalence: float | None = Field(
        None, gt=0, lt=1, description="malignant share in the target population; predictive values are also reported for it"
    )
    reader: str | None = Field(
        None, min_length=1, description="manifest column with a reader's diagnoses, for comparison; never a model input"
    )
    subgroups: tuple[str, ...] = Field(
        (), description="further manifest columns for subgroups, besides age, sex, site, source and image quality"
    )
    seed: int = Field(0, ge=0)

    @field_validator("sensitivity", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("sensitivity")
    @classmethod
    def _each_once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"{list(value)} names one sensitivity twice; name each once")
        return value
