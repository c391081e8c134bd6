"""How far the class-activation maps of a model are to be trusted, as its artifact records it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Words(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class GradeFigure(_Words):
    """A mean over groups with its interval."""

    value: float | None = Field(description="None: not estimable.")
    low: float | None = Field(description="Lower end of the interval; None: too few groups for one.")
    high: float | None


class MapGrade(_Words):
    """Whether the maps of a model are better than maps that look at nothing.

    Measured by `explain` on the model's own test split, for the class that it predicts, in one plain pass; it is said of the
    model, not of one image.
    """

    verdict: Literal["better", "no better", "not graded"] = Field(
        description="'better' only where the interval of each difference in `over` lies above 0."
    )
    words: str = Field(min_length=1, max_length=300, description="The verdict for a person.")
    faithfulness: GradeFigure | None = Field(
        description="Insertion minus deletion, mean over two baselines, -1..1; higher points better to what decides."
    )
    over: dict[Literal["centre", "random"], GradeFigure] = Field(
        description="Faithfulness minus that of a centered blob, and minus that of a random map, on the same images."
    )
    groups: Annotated[int, Field(ge=0, description="Groups of the test split that it was measured on.")]
    level: Annotated[float, Field(gt=0, lt=1)] | None = Field(description="Of the intervals.")


EXAMPLE = MapGrade(
    verdict="no better",
    words="no better than a centered blob for this model",
    faithfulness=GradeFigure(value=0.055, low=0.029, high=0.083),
    over={
        "centre": GradeFigure(value=-0.001, low=-0.037, high=0.029),
        "random": GradeFigure(value=0.058, low=0.019, high=0.096),
    },
    groups=40,
    level=0.95,
)
"""For documentation."""
UNGRADED = MapGrade(
    verdict="not graded",
    words="not graded: nobody has measured the maps of this model (dermalyze explain does)",
    faithfulness=None,
    over={},
    groups=0,
    level=None,
)
"""Of a model whose maps were never evaluated."""
