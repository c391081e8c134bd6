"""Fast mode measures once, a resume repeats the choice, deterministic mode never measures; bench leaves the run as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.atomic import sha256_file
from dermalyze.core.run import Run, read_json
from dermalyze.core.runtime import choose_runtime
from dermalyze.errors import UsageError
from dermalyze.stages.train import train
from dermalyze.training import autotune
from dermalyze.training.autotune import StepTime, best_of, combinations
from dermalyze.workflows.bench import bench

Make = Callable[..., tuple[Run, ExperimentSpec]]


@pytest.fixture
def make(new_world: Callable[..., Any]) -> Make:
    """A run that is prepared and split, not trained; settings are those of `train`."""

    def made(**settings: Any) -> tuple[Run, ExperimentSpec]:
        model = {"backbone": "tiny_cnn", "kwargs": {"channels": [8]}, "head": {"kind": "simple"}}
        split = {"fractions": {"train": 0.5, "val": 0.25, "test": 0.25}}
        world = new_world(model=model, split=split, train={"epochs": 2, "batch_size": 4, "threads": 1, **settings})
        world.run.best_record_path.unlink()
        world.run.best_weights_path.unlink()
        return world.run, world.spec

    return made


def times(**step_ms: float) -> Callable[..., list[StepTime]]:
    """A stand-in for the measurement: milliseconds by "bf16_last" and so on."""

    def measured(*args: Any, which: list[Any], **kwargs: Any) -> list[StepTime]:
        names = {r: f"{r.precision}_{'last' if r.channels_last else 'first'}" for r in which}
        return [StepTime(r.precision, r.channels_last, 1.0, 1.0, step_ms[names[r]]) for r in which]

    return measured


def never(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("measured")


def circumstances(run: Run) -> tuple[str, bool]:
    found = read_json(run.state_records()[0])["circumstances"]
    return found["precision"], found["channels_last"]


def test_fast_mode_takes_the_best_and_a_resume_reads_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, spec = make(mode="fast")
    monkeypatch.setattr(autotune, "step_times", times(fp32_last=9, fp32_first=8, bf16_last=6, bf16_first=5))
    train(run, spec)
    assert circumstances(run) == ("bf16", False)
    record = read_json(run.environment_path)["fast_mode"]
    assert (record["precision"], record["channels_last"], len(record["measured"])) == ("bf16", False, 4)
    for path in (run.history_path, *run.state_records()[:1]):
        path.unlink()  # as after a kill: the state before the last is gone on with
    monkeypatch.setattr(autotune, "step_times", never)
    train(run, spec)
    assert circumstances(run) == ("bf16", False)


def test_a_resume_under_other_threads_measures_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, spec = make(mode="fast", epochs=1)
    monkeypatch.setattr(autotune, "step_times", times(fp32_last=9, fp32_first=8, bf16_last=6, bf16_first=5))
    base = choose_runtime(device="cpu", threads=1, amp=False, channels_last=True, deterministic=False)
    assert not autotune.fastest_runtime(run, spec.model, spec.train, base, classes=3, size=(48, 40)).channels_last
    monkeypatch.setattr(autotune, "step_times", times(fp32_last=1, fp32_first=8, bf16_last=6, bf16_first=5))
    again = autotune.fastest_runtime(run, spec.model, spec.train, replace(base, threads=2), classes=3, size=(48, 40))
    assert (again.precision, again.channels_last, again.threads) == ("fp32", True, 2)


def test_what_is_set_is_kept_and_only_the_rest_measured(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, spec = make(mode="fast", amp=False, epochs=1)
    monkeypatch.setattr(autotune, "step_times", times(fp32_last=9, fp32_first=8))
    train(run, spec)
    assert circumstances(run) == ("fp32", False)


@pytest.mark.parametrize(
    "settings",
    [{"mode": "deterministic"}, {"mode": "fast", "amp": False, "channels_last": True}],
    ids=["deterministic", "all set"],
)
def test_nothing_is_measured_where_nothing_is_open(
    settings: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, spec = make(epochs=1, **settings)
    monkeypatch.setattr(autotune, "step_times", never)
    train(run, spec)
    assert circumstances(run) == ("fp32", True)
    assert not run.environment_path.exists()


def test_a_real_measurement_times_every_combination(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run, spec = make(mode="fast", epochs=1)
    train(run, spec)
    measured = read_json(run.environment_path)["fast_mode"]["measured"]
    assert {(m["precision"], m["channels_last"]) for m in measured} == {
        ("fp32", True), ("fp32", False), ("bf16", True), ("bf16", False),
    }  # fmt: skip
    assert all(0 < m["forward_ms"] + m["backward_ms"] <= 2 * m["step_ms"] for m in measured)
    assert "fast mode:" in capsys.readouterr().err


def test_bench_tells_everything_and_changes_nothing(make: Make) -> None:
    run, spec = make()
    before = {path: sha256_file(path) for path in sorted(run.root.rglob("*")) if path.is_file()}
    result = bench(run, spec, num_batches=3)
    assert {path: sha256_file(path) for path in sorted(run.root.rglob("*")) if path.is_file()} == before
    values = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert (values["device"], values["precision"], values["batches"], len(values["combinations"])) == ("cpu", "fp32", 3, 4)
    numbers = [v for v in values.values() if isinstance(v, float)]
    assert len(numbers) >= 7
    assert min(numbers) > 0
    steps = -(-run.certificate()["counts"]["train"]["images"] // 4)
    assert values["epoch_s"] >= steps * values["step_ms"] / 1e3
    assert values["training_s"] == pytest.approx(2 * values["epoch_s"])
    told = "\n".join(result.lines())
    assert all(word in told for word in ("loading", "forward", "backward", "memory", "whole training", "best"))


def test_bench_refuses_no_batches(make: Make) -> None:
    run, spec = make()
    with pytest.raises(UsageError, match="--num-batches is 0, must be 1 or more"):
        bench(run, spec, num_batches=0)


def test_a_lower_precision_must_pay() -> None:
    base = choose_runtime(device="cpu", threads=1, amp=False, channels_last=True, deterministic=False)
    assert len(combinations(base)) == 4
    assert [r.channels_last for r in combinations(base, amp=True)] == [True, False]
    assert best_of([StepTime("bf16", True, 1, 1, 96), StepTime("fp32", False, 1, 1, 100)]).precision == "fp32"
    assert best_of([StepTime("bf16", True, 1, 1, 94), StepTime("fp32", False, 1, 1, 100)]).precision == "bf16"
