"""One optimizer step: micro-batches equal one batch, the device is waited for once, nothing bad reaches the weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from painted_labels import label_spec, paint_set
from training import another, built, plain_runtime, split_run, tiny_run, tiny_set, tiny_spec

from dermalyze.core.run import Run
from dermalyze.core.runtime import applied
from dermalyze.errors import DataError
from dermalyze.training.setup import Training
from dermalyze.training.step import step

IMAGES = 16
PLAIN: dict[str, Any] = {  # no BatchNorm that learns, nothing random that depends on how a batch is cut
    "strategy": {"kind": "frozen"}, "augment": {"policy": "conservative"}, "clip_norm": None, "ema": None,
    "optimizer": {"kind": "sgd", "lr": 0.1, "weight_decay": 0.0},
}  # fmt: skip
LINEAR = {"head": {"kind": "linear"}}
CUTS = {"one": {"batch_size": 16, "accumulate": 1}, "four": {"batch_size": 4, "accumulate": 4}}


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _own_cache(_one_cache: None) -> None:
    """Instead of the folder's: here all tests may share one."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_set(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(scope="module")
def classes(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("classes") / "run", images)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("labels")
    return split_run(root / "run", label_spec(paint_set(root / "set"), train=PLAIN))


def take_step(training: Training) -> None:
    """The first images of the training split, cut as the run is configured."""
    size = training.specs.train.batch_size
    members = [np.arange(start, start + size) for start in range(0, IMAGES, size)]
    order = np.arange(len(training.rows["train"]))
    training.model.train()
    step(training, 0, members, order, training.loader.batches([training.rows["train"][member] for member in members]))


def head(training: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in training.model.head.parameters()])


class TestMicroBatches:
    @pytest.mark.parametrize("balance", ["none", "weights"])
    def test_equal_one_batch_of_classes(self, balance: str, classes: Run, images: Path, tmp_path: Path) -> None:
        done = {}
        for name, sizes in CUTS.items():
            spec = tiny_spec(images, model=LINEAR, **{**PLAIN, **sizes, "imbalance": {"kind": balance}})
            with applied(plain_runtime()):
                training = built(another(classes, tmp_path / name, spec), plain_runtime())
                before = head(training)
                take_step(training)
            done[name] = head(training), training.state.progress.sums
            assert not torch.allclose(done[name][0], before, atol=1e-4)
        torch.testing.assert_close(done["one"][0], done["four"][0], rtol=1e-5, atol=1e-6)
        assert done["one"][1] == pytest.approx(done["four"][1], rel=1e-5)
        assert done["one"][1][0] == done["one"][1][3] == IMAGES

    def test_equal_one_batch_of_labels_some_of_which_are_missing(self, labels: Run, tmp_path: Path) -> None:
        """Of very unequal numbers a micro-batch; a mean over each of them would be another one."""
        done = {}
        missing = np.random.default_rng(0).random((IMAGES, 3)) < np.linspace(0, 1, IMAGES)[:, None]
        for name, sizes in CUTS.items():
            spec = label_spec(Path(str(labels.config().data.path)), train={**PLAIN, **sizes, "imbalance": {"kind": "weights"}})
            with applied(plain_runtime()):
                training = built(another(labels, tmp_path / name, spec), plain_runtime())
                training.labels["train"][:IMAGES][missing] = -1
                take_step(training)
            done[name] = head(training), training.state.progress.sums
        torch.testing.assert_close(done["one"][0], done["four"][0], rtol=1e-5, atol=1e-6)
        assert done["one"][1] == pytest.approx(done["four"][1], rel=1e-5)
        assert done["one"][1][3] == (~missing).sum()

    def test_labels_that_are_all_missing_teach_nothing(self, labels: Run, tmp_path: Path) -> None:
        spec = label_spec(Path(str(labels.config().data.path)), train={**PLAIN, **CUTS["four"]})
        with applied(plain_runtime()):
            training = built(another(labels, tmp_path / "run", spec), plain_runtime())
            training.labels["train"][:] = -1
            before = head(training)
            take_step(training)
        assert torch.equal(head(training), before)
        assert training.state.progress.sums == [IMAGES, 0, 0, 0]


def counted(waits: Counter[str], name: str) -> Callable[..., Any]:
    """A method of tensors that counts its calls."""
    original = getattr(torch.Tensor, name)

    def call(self: torch.Tensor, *arguments: Any) -> Any:
        waits[name] += 1
        return original(self, *arguments)

    return call


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_the_device_is_waited_for_once(
    accumulate: int, clip_norm: float | None, classes: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "batch_size": IMAGES // accumulate, "accumulate": accumulate, "clip_norm": clip_norm, "ema": 0.9,
        "augment": {"policy": "strong", "mixup": 0.4}, "imbalance": {"kind": "weights"},
    }  # fmt: skip
    with applied(plain_runtime()):
        training = built(another(classes, tmp_path / "run", tiny_spec(images, **changes)), plain_runtime())
        take_step(training)  # the loader and the optimizer have begun
        waits: Counter[str] = Counter()
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__"):
            monkeypatch.setattr(torch.Tensor, name, counted(waits, name))
        take_step(training)
    assert waits == {"tolist": 1}


class TestDivergence:
    @pytest.mark.parametrize("clip_norm", [None, 1.0])
    def test_a_gradient_that_is_not_finite_stops_before_the_optimizer(
        self, clip_norm: float | None, classes: Run, images: Path, tmp_path: Path
    ) -> None:
        run = another(classes, tmp_path / "run", tiny_spec(images, batch_size=4, accumulate=4, clip_norm=clip_norm))
        with applied(plain_runtime()):
            training = built(run, plain_runtime())
            before = {name: tensor.clone() for name, tensor in training.model.named_parameters()}
            next(training.model.head.parameters()).register_hook(lambda gradient: gradient * np.inf)
            with pytest.raises(DataError, match=r"gradient norm is (inf|nan) at epoch 1, step 1: .* cause: weights or"):
                take_step(training)
        assert all(torch.equal(before[name], tensor) for name, tensor in training.model.named_parameters())
        assert not training.state.learner.optimizer.state
        noted = json.loads(run.diverged_path.read_text())
        assert noted["what"] == "gradient norm"
        assert noted["image_ids"] == [training.image_ids[row] for row in training.rows["train"][:IMAGES]]

    def test_one_bad_micro_batch_of_four_is_enough(self, classes: Run, images: Path, tmp_path: Path) -> None:
        run = another(classes, tmp_path / "run", tiny_spec(images, batch_size=4, accumulate=4))
        with applied(plain_runtime()):
            training = built(run, plain_runtime())
            passes: list[int] = []
            forward = training.model.forward

            def third_is_bad(*arguments: Any) -> torch.Tensor:
                passes.append(1)
                return forward(*arguments) * (np.nan if len(passes) == 3 else 1.0)

            training.model.forward = third_is_bad  # type: ignore[method-assign]
            before = {name: tensor.clone() for name, tensor in training.model.named_parameters()}
            with pytest.raises(DataError, match="loss is nan at epoch 1, step 1: stopped before the optimizer step"):
                take_step(training)
        assert len(passes) == 4, "the device is asked once, after all"
        assert all(torch.equal(before[name], tensor) for name, tensor in training.model.named_parameters())
