"""Recipes stored beside the served one: scored, calibrated and compared on the same images; what cannot be done says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ConfigError, UsageError
from dermalyze.metrics.activation import softmax
from dermalyze.scoring.predictions import read_predictions
from dermalyze.stages.calibrate import calibrate
from dermalyze.stages.evaluate import evaluate
from dermalyze.stages.export import export
from dermalyze.stages.score import score


@pytest.fixture(scope="module")
def world(new_world: Callable[..., Any]) -> Any:
    """Scored with two further recipes, calibrated and evaluated."""
    made = new_world(evaluate={"resamples": 100})
    export(made.run, made.spec)
    score(made.run, made.spec, recipes=["tta", "mc_dropout", "plain"], passes=4)
    calibrate(made.run, made.spec)
    evaluate(made.run, made.spec)
    return made


def stored(run: Run, part: str, recipe: str) -> Any:
    return read_predictions(run.predictions_path(part, recipe))


def test_further_recipes_stand_beside_the_served_one(world: Any) -> None:
    run = world.run
    for part in ("val", "cal", "test"):
        assert run.stored_recipes(part) == ["mc_dropout", "plain", "tta"]
        served = stored(run, part, "plain")
        assert served.samples is None
        for recipe, passes in (("tta", 7), ("mc_dropout", 4)):
            p = stored(run, part, recipe)
            assert (p.ids, p.labels.tolist(), p.groups) == (served.ids, served.labels.tolist(), served.groups)
            assert p.samples.shape == (len(p), passes, 3)
            mean = np.mean([softmax(p.samples[:, k]) for k in range(passes)], axis=0)
            np.testing.assert_allclose(p.probs(), mean, atol=1e-6)
            assert p.samples.std(axis=1).max() > 1e-3, "passes that do not differ compare nothing"
            assert p.meta["scores_sha256"] == served.meta["scores_sha256"]
        np.testing.assert_allclose(stored(run, part, "tta").samples[:, 0], served.logits, atol=1e-6)
    assert run.stored_recipes("train") == ["plain"], "nothing is fitted or evaluated there"


def test_again_is_no_work_and_a_repeat_gives_the_same_bytes(world: Any) -> None:
    path = world.run.predictions_path("test", "mc_dropout")
    before = path.read_bytes()
    path.unlink()
    result = score(world.run, world.spec, recipes=["tta", "mc_dropout"], passes=4)
    assert path.read_bytes() == before
    assert sorted(result.skipped) == ["cal", "test", "train", "val"]
    assert [(one.recipe, sorted(one.skipped)) for one in result.further] == [
        ("tta", ["cal", "test", "val"]),
        ("mc_dropout", ["cal", "val"]),
    ]
    assert [line.split()[3] for line in result.lines()] == ["plain:", "tta:", "mc_dropout:"]


def test_each_recipe_has_its_own_calibration_and_only_the_served_is_in_the_artifact(world: Any) -> None:
    served, *further = [read_json(world.run.calibration_path(name)) for name in ("plain", "tta", "mc_dropout")]
    assert read_json(world.run.artifact_record_path)["calibration"] == served["calibration"]
    assert [known["recipe"] for known in further] == ["tta", "mc_dropout"]
    assert len({known["predictions_sha256"] for known in (served, *further)}) == 3
    result = calibrate(world.run, world.spec)
    assert [one.recipe for one in result.further] == ["mc_dropout", "tta"]
    assert any("recipe tta, to be compared" in line for line in result.lines())


def test_the_report_compares_every_source_of_every_recipe(world: Any) -> None:
    m = read_json(world.run.evaluation_path)
    rows = {row["recipe"]: row for row in m["uncertainty"]["recipes"]}
    assert {name: row["passes"] for name, row in rows.items()} == {"plain": 1, "mc_dropout": 4, "tta": 7}
    assert len(rows["plain"]["sources"]) == 3
    assert len(rows["tta"]["sources"]) == len(rows["mc_dropout"]["sources"]) == 7
    own = rows["plain"]["sources"]["max_probability"]
    assert own["difference"]["value"] == 0
    assert own["aurc"]["value"] == pytest.approx(m["selective"]["quality"]["max_probability"]["aurc"])
    page = (world.run.report_dir / "report.html").read_text()
    assert "mutual information (epistemic)" in page
    assert "mc_dropout, 4 passes" in page


def test_predictions_of_another_model_are_left_out_and_named(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from dermalyze.scoring.predictions import Predictions, write_predictions

    path = world.run.predictions_path("test", "tta")
    before, p = path.read_bytes(), stored(world.run, "test", "tta")
    try:
        meta = {**p.meta, "scores_sha256": "0" * 64}
        write_predictions(path, Predictions(p.ids, p.groups, p.labels, p.logits, None, meta, p.samples))
        found = evaluate(world.run, world.spec).metrics["uncertainty"]["recipes"]
    finally:
        path.write_bytes(before)
    assert [row["recipe"] for row in found] == ["plain", "mc_dropout"]
    assert "predictions by recipe tta are of another model" in capsys.readouterr().err


def test_what_is_no_recipe_is_refused_before_any_work(world: Any) -> None:
    with pytest.raises(UsageError, match="did you mean 'tta'"):
        score(world.run, world.spec, recipes=["tta2"])
    with pytest.raises(UsageError, match="--passes is 1"):
        score(world.run, world.spec, recipes=["mc_dropout"], passes=1)


def test_mc_dropout_of_a_network_without_dropout_is_refused(new_world: Callable[..., Any], tmp_path: Path) -> None:
    model = {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "linear", "dropout": 0.0}}
    made = new_world(model=model)
    export(made.run, made.spec)
    with pytest.raises(ConfigError, match=r"set model\.head\.dropout above 0"):
        score(made.run, made.spec, recipes=["mc_dropout"])
    assert not made.run.predictions_dir.exists()
    done = CliRunner().invoke(app, ["score", str(made.run.root), "--recipes", "mc_dropout"])
    assert done.exit_code == 2
    assert "set model.head.dropout above 0" in done.stderr


def test_mc_dropout_cannot_be_served_and_the_configuration_says_why() -> None:
    with pytest.raises(ConfigError, match=r"mc_dropout cannot be served.*--recipes mc_dropout"):
        build_experiment({"inference": {"recipe": "mc_dropout"}})
