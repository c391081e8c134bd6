"""Labels of images that may have several: as sources say them, as the manifest holds them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermalyze.config.experiment import build_experiment
from dermalyze.config.task import MultilabelTask
from dermalyze.core.run import Run, read_json
from dermalyze.data.manifest import read_manifest, read_task
from dermalyze.data.multilabel_targets import counts_by, settle_label_sets
from dermalyze.data.sources.reading import Row
from dermalyze.errors import ConfigError, DataError, DermalyzeError
from dermalyze.stages.prepare import prepare
from dermalyze.tasks.base import TASKS


def rows(*texts: str) -> list[Row]:
    return [Row(f"t.csv line {n + 2}", f"i{n}", text, None) for n, text in enumerate(texts)]


def settle(*texts: str, task: MultilabelTask = MultilabelTask(), **options: Any) -> tuple[list[str], list[str]]:  # noqa: B008
    return settle_label_sets(rows(*texts), task, **{"label_map": {}, "chosen": None, "own": None, **options})


def test_texts_are_parted_mapped_and_ordered() -> None:
    assert settle("b|a", "", "a") == (["a|b", "(none)", "a"], ["a", "b"])
    assert settle("b|a", chosen=["b", "a"]) == (["b|a"], ["b", "a"])
    assert settle("x|a", "b", label_map={"x": "b"}) == (["a|b", "b"], ["a", "b"])
    assert settle("x|a", "b", "x", label_map={"x": None}) == (["a", "b", "(none)"], ["a", "b"]), "null leaves out the label"
    assert settle("x|b", "b", "a", label_map={"x": "b"})[0][0] == "b", "two names of one label"
    task = MultilabelTask(separator=";", none=("No Finding",))
    assert settle("a;b", "No Finding", task=task) == (["a|b", "(none)"], ["a", "b"])


def test_what_nobody_knows_is_marked() -> None:
    assert settle("b|?a", "?b", "a") == (["?a|b", "?b", "a"], ["a", "b"])
    assert settle("?x|a", "?b", "?x|b", "?x|?b", label_map={"x": "b"})[0] == ["a|?b", "?b", "b", "?b"]
    assert settle("?x|a", "b", "?x", label_map={"x": None}) == (["a", "b", "(none)"], ["a", "b"])
    task = MultilabelTask(none=("none",))
    assert settle("a|?none", "b", task=task)[0] == ["a", "b"], "that nobody knows whether there is none says nothing"


@pytest.mark.parametrize(
    ("texts", "options", "error", "said"),
    [
        (["a|b", "a|a"], {}, DataError, r"line 3: label 'a' is listed twice"),
        (["a|b", "a|?a"], {}, DataError, r"line 3: label 'a' is listed twice"),
        (["a|b", "a||b"], {}, DataError, r"line 3: .* hold an empty one"),
        (["a|b", "a|?"], {}, DataError, r"line 3: .* hold an empty one"),
        (["a|x"], {"label_map": {"x": "?x"}}, ConfigError, r"nor begin with '\?'"),
        (["a|b", "a|"], {}, DataError, r"line 3"),
        (
            ["a|b", "none|a"],
            {"task": MultilabelTask(none=("none",))},
            DataError,
            r"line 3: 'none' means no label, but a is listed",
        ),
        (["a|b", "nan"], {}, DataError, r"'nan' \(1 image"),
        (["edema|mass", "edema", " edema"], {}, DataError, r"' edema' \(1 image.*did you mean 'edema'"),
        (["edema|mass", "edma"], {"chosen": ["edema", "mass"]}, DataError, r"did you mean 'edema'"),
        (["a", ""], {}, DataError, r"only 1 label"),
        (["", ""], {}, DataError, r"only 0 label"),
        (["a|b;c"], {"task": MultilabelTask(separator=";")}, ConfigError, r"may neither hold '\|'"),
        (["a|b"], {"label_map": {"a": "c"}, "chosen": ["a", "b"]}, ConfigError, r"label_map: maps to \['c'\]"),
    ],
)
def test_what_is_refused(texts: list[str], options: dict[str, Any], error: type[DermalyzeError], said: str) -> None:
    with pytest.raises(error, match=said):
        settle(*texts, **options)


def test_counts_by_a_key() -> None:
    by, labels = pd.Series(["g", "g", "h"]), pd.Series(["a|b", "(none)", "b"])
    found = counts_by(by, labels, ["a", "b", "c"], TASKS["multilabel"])
    assert found.to_dict("index") == {"g": {"a": 1, "b": 1, "c": 0}, "h": {"a": 0, "b": 1, "c": 0}}
    one = counts_by(by, pd.Series(["a", "b", "b"]), ["a", "b", "c"], TASKS["multiclass"])
    assert one.to_dict("index") == {"g": {"a": 1, "b": 1, "c": 0}, "h": {"a": 0, "b": 1, "c": 0}}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Run]:
    """`made(csv, **config)`: prepared from a table and images a.png, b.png, c.png of their own."""

    def make(text: str, **config: Any) -> Run:
        data = tmp_path / "data"
        data.mkdir()
        for n, name in enumerate("abc"):
            pixels = np.random.default_rng(n).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / f"{name}.png")
        (data / "t.csv").write_text(text)
        source = {"kind": "csv", "extension": ".png", **config.pop("source", {})}
        task = {"kind": "multilabel", **config.pop("task", {})}
        spec = build_experiment({"task": task, "data": {"source": source, "path": str(data), "workers": 0, **config}})
        run = Run.create(tmp_path / "run", spec)
        prepare(run, spec)
        return run

    return make


def test_label_columns(made: Callable[..., Run]) -> None:
    columns = ["mass", "edema", "clear"]
    text = "image_id,patient_id,label,mass,edema,clear\na,P1,x,1,1,0\nb,P1,x,0,1.0,0.0\nc,P2,x,0,0,1\n"
    run = made(text, source={"labels": columns}, task={"none": ["clear"]})
    frame = read_manifest(run).set_index("image_id")
    assert frame["label"].to_dict() == {"a": "mass|edema", "b": "edema", "c": "(none)"}
    summary = read_json(run.summary_path)
    assert (summary["classes"], summary["class_counts"]) == (["mass", "edema"], {"mass": 1, "edema": 2})
    assert summary["without_label"] == 1
    assert read_task(run).kind == "multilabel"
    assert not {"mass", "edema", "clear"} & set(frame.columns), "the answer is no column of the user's"
    assert "label_user" in frame.columns, "a column called label beside them is not the label"


def test_one_column(made: Callable[..., Run]) -> None:
    run = made("image_id,label\na,mass|edema\nb,\nc,mass\n")
    assert read_manifest(run).set_index("image_id")["label"].to_dict() == {"a": "edema|mass", "b": "(none)", "c": "mass"}


def test_label_columns_with_gaps(made: Callable[..., Run]) -> None:
    run = made("image_id,x,y\na,1,\nb,-1,1\nc,0,0\n", source={"labels": ["x", "y"]})
    assert read_manifest(run).set_index("image_id")["label"].to_dict() == {"a": "x|?y", "b": "?x|y", "c": "(none)"}
    assert read_json(run.summary_path)["class_counts"] == {"x": 1, "y": 1}


TWO = {"labels": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "config", "said"),
    [
        (
            "image_id,x,y\na,1,0\nb,2,1\nc,0,0\n",
            {"source": TWO},
            r"t.csv line 3: label column 'x' is '2', must be 1, 0, or empty",
        ),
        ("image_id,x,y\na,1,0\nb,0.5,1\nc,0,0\n", {"source": TWO}, r"line 3: .*'0.5'"),
        ("image_id,x,y\na,1,0\nb,yes,1\nc,0,0\n", {"source": TWO}, r"line 3: .*'yes'"),
        ("image_id,x,Y\na,1,0\nb,0,1\nc,0,0\n", {"source": TWO}, r"label columns \['y'\] are missing"),
        ("image_id,x,y\na,1,0\nb,0,1\nc,0,0\n", {"source": {"labels": ["x", "x"]}}, r"name one twice"),
        ("image_id,x,y\na,1,0\nb,1,1\nc,1,0\n", {"source": TWO}, r"label 'x' is on all 3 usable images,"),
        (
            "image_id,x,y\na,1,0\nb,,1\nc,1,0\n",
            {"source": TWO},
            r"label 'x' is on all 2 usable images of which it is known",
        ),
        ("image_id,x,y\na,1,0\nb,1,0\nc,0,0\n", {"source": TWO}, r"\['y'\] have 0 usable images"),
        (
            "image_id,x,y,ok\na,1,0,0\nb,0,1,1\nc,0,0,1\n",
            {"source": {"labels": ["x", "y", "ok"]}, "task": {"none": ["ok"]}},
            r"line 3: 'ok' means no label, but y is listed too",
        ),
        ("image_id,x,y\na,1,0\na,0,1\nc,0,0\n", {"source": TWO}, r"image_id 'a' is repeated"),
        ("image_id,tag\na,x|y\nb,x\nc,\n", {}, r"columns \['label'\] are missing"),
    ],
)
def test_bad_tables(made: Callable[..., Run], text: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        made(text, **config)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
