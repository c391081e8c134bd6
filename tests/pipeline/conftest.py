"""Runs with a checkpoint of random weights, ready to be exported, scored and damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dermalyze.config.experiment import ExperimentSpec, build_experiment
from dermalyze.core.atomic import sha256_file
from dermalyze.core.run import Run

CLASSES = ("mel", "nv", "my class")


@dataclass(frozen=True)
class World:
    run: Run
    spec: ExperimentSpec
    images: list[Path]


def pictures(root: Path, seed: int = 0) -> list[Path]:
    """Smooth images of odd sizes, one folder a class."""
    rng = np.random.default_rng(seed)
    made = []
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for i in range(10):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
            path = root / name / f"{name}_{i}.{'jpg' if i % 2 else 'png'}"
            coarse.resize((50 + 3 * i, 40 + i), Image.Resampling.BICUBIC).save(path)
            made.append(path)
    return made


def checkpoint(run: Run, spec: ExperimentSpec, seed: int = 0, **changes: Any) -> None:
    """A best checkpoint as `train` leaves it, of random weights that tell images apart."""
    import torch

    from dermalyze.imaging.decode import Preprocessing
    from dermalyze.models.classifier import build_classifier
    from dermalyze.training.checkpoint import save_best

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = build_classifier(spec.model, len(CLASSES), load_weights=False)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
            torch.nn.init.uniform_(module.running_var, 0.05, 0.2)  # type: ignore[arg-type]
    if spec.model.head.kind == "acrnn":
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.mul_(2.0)
    preprocessing = Preprocessing.resolve(spec.preprocess, size=(48, 40), mean=(0.7, 0.5, 0.4), std=(0.2, 0.25, 0.3))
    record = {
        "classes": sorted(CLASSES),
        "preprocessing": preprocessing.as_dict(),
        "model": spec.model.model_dump(mode="json"),
        "epoch": 3, "metric": "val_loss", "value": 0.5, "seed": spec.seed, "accepted_leak": None,
        "metadata": None, "late_fusion": None,
        "manifest_sha256": run.manifest_hash(),
        "config_sha256": sha256_file(run.config_path),
        **changes,
    }  # fmt: skip
    save_best(run, model, record)


def make_world(root: Path, **config: Any) -> World:
    """Prepared, split and with a checkpoint."""
    from dermalyze.stages.prepare import prepare
    from dermalyze.stages.split import split

    images = pictures(root / "data")
    values = {
        "data": {"source": {"kind": "folder"}, "path": str(root / "data"), "workers": 0},
        "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "simple"}},
        "preprocess": {"size": [48, 40]},
        "train": {"threads": 1},
        **config,
    }
    spec = build_experiment(values)
    run = Run.create(root / "run", spec)
    prepare(run, spec)
    split(run, spec)
    checkpoint(run, spec)
    return World(run, spec, images)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def new_world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """`new_world(**config)`: prepared, split and with a checkpoint."""
    return lambda **config: make_world(tmp_path_factory.mktemp("world"), **config)


@pytest.fixture(scope="session")
def save_checkpoint() -> Callable[..., None]:
    """`save_checkpoint(run, spec, seed=0, **record_changes)`."""
    return checkpoint


@pytest.fixture(scope="session")
def plain_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    from dermalyze.stages.export import export

    made = make_world(tmp_path_factory.mktemp("plain"))
    export(made.run, made.spec)
    return made


@pytest.fixture
def copy_of(plain_world: World, tmp_path: Path) -> Callable[[], World]:
    """A copy with its own data, to be damaged."""

    def make() -> World:
        root = tmp_path / "copy"
        shutil.copytree(plain_world.run.root.parent, root)
        data = plain_world.spec.data.model_copy(update={"path": str(root / "data")})
        return World(
            Run(root / "run"), plain_world.spec.model_copy(update={"data": data}), sorted((root / "data").rglob("*.*"))
        )

    return make
