"""A prepared run from a frame of manifest rows, without images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.atomic import write_json
from dermalyze.core.run import MANIFEST_COLUMNS, Run
from dermalyze.data.manifest import write_manifest

Prepared = Callable[..., tuple[Run, ExperimentSpec]]


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """`prepared(frame, classes=None, config=None, name="run")`: the run folder that `prepare` would have left."""

    def make(
        frame: pd.DataFrame, classes: list[str] | None = None, config: dict[str, Any] | None = None, name: str = "run"
    ) -> tuple[Run, ExperimentSpec]:
        spec = build_experiment(config or {})
        run = Run.create(tmp_path / name, spec)
        write_json(run.summary_path, {"classes": classes or sorted(set(frame["label"].dropna())), "task": "multiclass"})
        write_manifest(run, frame.assign(**{column: None for column in MANIFEST_COLUMNS if column not in frame}))
        return run, spec

    return make
