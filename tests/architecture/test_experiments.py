"""Every experiment that is shipped loads, and holds no path of one machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from dermalyze.config.base import read_mapping
from dermalyze.config.experiment import ExperimentSpec, load_experiment
from dermalyze.config.study import load_study

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
STUDIES = [path for path in FILES if "variants" in read_mapping(path, "")]
EXPERIMENTS = [path for path in FILES if path not in STUDIES]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_loads(path: Path) -> None:
    spec = load_experiment(path)
    assert spec.name != "dermalyze" or path.stem == "dermalyze", "give the experiment a name of its own"
    require_no_own_path(spec)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_loads(path: Path) -> None:
    for spec in load_study(path).variants.values():
        require_no_own_path(spec)


def require_no_own_path(spec: ExperimentSpec) -> None:
    paths = [spec.model.weights, *([spec.data.path] if isinstance(spec.data.path, str) else spec.data.path or [])]
    assert not [p for p in paths if p is not None and (Path(p).is_absolute() or p.startswith("~"))]


def test_there_are_experiments() -> None:
    assert "dermalyze" in [path.stem for path in EXPERIMENTS]
    assert "study" in [path.stem for path in STUDIES]
