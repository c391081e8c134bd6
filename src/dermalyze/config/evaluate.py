"""How results are summed up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dermalyze.config.base import Spec


class EvaluateSpec(Spec):
    """How results are summed up."""

    resamples: int = Field(2000, ge=100, description="bootstrap resamples over lesions (or patients)")
    level: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    set_level: float = Field(0.9, gt=0.5, lt=1, description="share of cases that the conformal sets of the report are to cover")
    ece_bins: int = Field(15, ge=2, le=100, description="equal-width bins of the expected calibration error")
    malignant: Literal["auto"] | list[str] | None = Field(
        "auto",
        description="classes that count as malignant or precancer, for the two-class view; auto: those known by name, such as "
        "mel, bcc and akiec of HAM10000; null: no such view",
    )
    sensitivity: float = Field(0.95, gt=0.5, lt=1, description="of the operating point that may miss few")
    miss_cost: float = Field(
        10.0, gt=0, description="a miss weighs as much as this number of false alarms, for the cost-weighted operating point"
    )
    sensitivity_floor: float = Field(
        0.8, ge=0, lt=1, description="the partial AUROC is the area above this sensitivity; 0.8 as in ISIC 2024"
    )
    prevalence: float | None = Field(
        None, gt=0, lt=1, description="share of malignant cases where you work; predictive values are given for it too"
    )
    reader: str | None = Field(
        None, min_length=1, description="column of the manifest with a person's answers, to be compared; never a model's input"
    )
    subgroups: tuple[str, ...] = Field(
        (), description="columns of the manifest by which results are broken down too, beside age, sex, site, source and looks"
    )
    seed: int = Field(0, ge=0)
