"""Metadata that is the label in other words."""

import pandas as pd
import pytest

from dermalyze.audit.association import refuse_revealing
from dermalyze.errors import ConfigError
from dermalyze.tasks.base import TASKS
from dermalyze.tasks.multilabel import NO_LABEL


def frame(labels: list[str], column: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": [f"i{n}" for n in range(len(labels))], "label": labels, "told": column})


def test_of_several_labels_one_is_enough() -> None:
    labels = [["edema", "mass", "edema|mass", NO_LABEL][n % 4] for n in range(80)]
    with pytest.raises(ConfigError, match="'told' alone predicts 'mass' nearly perfectly"):
        refuse_revealing(frame(labels, ["mass" in label for label in labels]), ["told"], ["edema", "mass"], TASKS["multilabel"])
    unrelated = frame(labels, [n % 3 for n in range(80)])
    refuse_revealing(unrelated, ["told"], ["edema", "mass"], TASKS["multilabel"])


def test_images_whose_label_nobody_knows_tell_nothing() -> None:
    labels = ["mass", NO_LABEL] * 10 + ["?mass"] * 20
    with pytest.raises(ConfigError, match="predicts 'mass'"):
        refuse_revealing(frame(labels, ["a", "b"] * 10 + ["a"] * 20), ["told"], ["mass", "edema"], TASKS["multilabel"])


def test_an_id_of_each_group_tells_nothing_of_other_groups() -> None:
    refuse_revealing(frame(["mel", "nv"] * 20, [f"id{n}" for n in range(40)]), ["told"], ["mel", "nv"], TASKS["multiclass"])
