"""The modality that a data set has."""

from __future__ import annotations

from typing import Any

import pytest

from dermalyze.config.data import DataSpec, modality_name
from dermalyze.config.experiment import build_experiment
from dermalyze.errors import ConfigError

HAM, ISIC, PAD = ({"kind": kind} for kind in ("ham10000", "isic2019", "pad_ufes_20"))


@pytest.mark.parametrize(
    ("source", "name"),
    [
        *(({"kind": kind}, "dermoscopy") for kind in ("ham10000", "isic2018", "isic2019", "isic2020", "isic_archive")),
        *(({"kind": kind}, "dermoscopy") for kind in ("bcn20000", "csv", "folder", "merged", "derm7pt")),
        *(({"kind": kind}, "clinical") for kind in ("pad_ufes_20", "fitzpatrick17k")),
        ({"kind": "derm7pt", "images": "paired"}, "dermoscopy"),
        ({"kind": "derm7pt", "images": "clinical"}, "clinical"),
        ({"kind": "merged", "sources": [{"source": HAM}, {"source": ISIC}]}, "dermoscopy"),
        ({"kind": "merged", "sources": [{"source": PAD}, {"source": {"kind": "fitzpatrick17k"}}]}, "clinical"),
    ],
)
def test_each_source_has_its_own(source: dict[str, Any], name: str) -> None:
    assert modality_name(DataSpec.model_validate({"source": source})) == name


@pytest.mark.parametrize(
    "source",
    [{"kind": "merged", "sources": [{"source": HAM}, {"source": PAD}]}, {"kind": "derm7pt", "images": "both"}],
    ids=lambda source: source["kind"],
)
def test_several_need_a_choice(source: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"several modalities \(dermoscopy, clinical\); set data\.modality to one of them"
    ) as told:
        build_experiment({"data": {"source": source}})
    assert "\n" not in str(told.value)
    spec = build_experiment({"data": {"source": source}}, sets=["data.modality=clinical"])
    assert modality_name(spec.data) == "clinical"


def test_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.modality.*dermoscopy.*clinical"):
        build_experiment({"data": {"modality": "mri"}})
