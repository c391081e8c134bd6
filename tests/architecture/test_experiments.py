"""Every experiment that is shipped loads, and holds no path of one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermalyze.config.experiment import load_experiment

EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_loads(path: Path) -> None:
    spec = load_experiment(path)
    assert spec.name != "dermalyze" or path.stem == "dermalyze", "give the experiment a name of its own"
    paths = [spec.model.weights, *([spec.data.path] if isinstance(spec.data.path, str) else spec.data.path or [])]
    assert not [p for p in paths if p is not None and (Path(p).is_absolute() or p.startswith("~"))]


def test_there_are_experiments() -> None:
    assert "dermalyze" in [path.stem for path in EXPERIMENTS]
