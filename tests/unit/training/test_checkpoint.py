"""Checkpoints: whatever happens while one is written, a whole one is found; another's is refused by what differs."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.core.run import Run, read_json
from dermalyze.errors import ModelError, ResourceError
from dermalyze.models.weights import read_tensors
from dermalyze.training.checkpoint import (
    load_state_pair,
    require_best,
    require_same,
    save_best,
    save_state_pair,
    settle_best,
)
from dermalyze.training.optim import Ema
from dermalyze.training.state import Learner

RECORD = {"circumstances": {}, "halvings": 0, "optimizer_scalars": {}, "progress": {}, "quarantined": {}, "scaler": {}}
MANY = 64


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """With the states 1 and 2, and best weights of 1."""
    run = Run.create(tmp_path / "run", ExperimentSpec())
    for step in (1, 2):
        save(run, step)
    save_best(run, network(1), {"epoch": 1})
    return run


def network(step: int) -> nn.Module:
    model = nn.Linear(100, 50)
    for parameter in model.parameters():
        nn.init.constant_(parameter, float(step))
    return model


def save(run: Run, step: int) -> None:
    save_state_pair(run, step, {"a": torch.full((5000,), float(step))}, RECORD)


def loaded(run: Run) -> int:
    """The step of the state that is found, checked to be whole."""
    found = load_state_pair(run)
    assert found is not None
    tensors, record = found
    assert tensors["a"].eq(record["step"]).all()
    return int(record["step"])


def best(run: Run) -> int:
    """The epoch of the best weights, checked to be whole."""
    settle_best(run)
    require_best(run)
    epoch = int(read_json(run.best_record_path)["epoch"])
    assert read_tensors(run.best_weights_path)["weight"].eq(epoch).all()
    return epoch


def dies(root: Path, number: int, act: Callable[[], None], *, half: bool = False) -> bool:
    """Whether a fork that does `act` is killed before its change `number` of a file below `root`.

    Args:
        half: instead of before a change, after the first half of the bytes of write `number`.
    """
    pid = os.fork()
    if pid == 0:
        seen = 0

        def count() -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
            if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(str(root)):
                count()

        def write_half(path: Path, data: bytes) -> int:
            with path.open("wb") as stream:
                stream.write(data[: len(data) // 2])
                stream.flush()
                count()
                return stream.write(data[len(data) // 2 :])

        def fsync(descriptor: int, original: Callable[[int], None] = os.fsync) -> None:
            original(descriptor)
            if not half:
                count()

        try:
            if half:
                Path.write_bytes = write_half  # type: ignore[assignment,method-assign]
            else:
                sys.addaudithook(hook)
            os.fsync = fsync
            act()
        finally:
            os._exit(0)
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestKill:
    @pytest.mark.parametrize("half", [False, True])
    def test_at_every_change_of_a_state(self, run: Run, half: bool, capsys: pytest.CaptureFixture[str]) -> None:
        found = []
        for number in range(1, MANY):
            copy = Run(Path(shutil.copytree(run.root, run.root.with_name(f"copy{number}"))))
            if not dies(copy.root, number, lambda copy=copy: save(copy, 3), half=half):
                break
            found.append(loaded(copy))
            assert "damaged" not in capsys.readouterr().err
            copy.sweep()
            save(copy, 3)
            assert loaded(copy) == 3
            assert sorted(path.name[:13] for path in copy.checkpoints_dir.iterdir() if path.name.startswith("last")) == (
                ["last-00000002"] * 2 + ["last-00000003"] * 2
            )
            assert not list(copy.checkpoints_dir.glob(".*"))
        assert number == len(found) + 1 < MANY - 1
        assert found == sorted(found)  # once the new one counts it stays
        assert set(found) == ({2} if half else {2, 3})
        assert len(found) == (2 if half else 14)  # per file: create, write, flush, rename, flush of the folder; then 2 removed

    @pytest.mark.parametrize("half", [False, True])
    def test_at_every_change_of_the_best(self, run: Run, half: bool) -> None:
        found = []
        for number in range(1, MANY):
            copy = Run(Path(shutil.copytree(run.root, run.root.with_name(f"copy{number}"))))
            if not dies(copy.root, number, lambda copy=copy: save_best(copy, network(2), {"epoch": 2}), half=half):
                break
            found.append(best(copy))
            assert not copy.next_best_path.exists()
            save_best(copy, network(2), {"epoch": 2})
            assert best(copy) == 2
        assert number == len(found) + 1 < MANY - 1
        assert found == sorted(found)
        assert set(found) == ({1} if half else {1, 2})


class TestErrors:
    """The operating system says no, at any call: exit 5, what was there stands, nothing half-written stays."""

    @pytest.mark.parametrize("call", ["fsync", "open", "replace", "unlink"])
    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
    def test_each(self, call: str, number: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(os, call)
        calls, fail_at, newest = 0, 0, (2, 1)

        def failing(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == fail_at:
                raise OSError(number, os.strerror(number))
            return original(*arguments, **options)

        monkeypatch.setattr(os, call, failing)
        for fail_at in range(1, MANY):
            calls = 0
            try:
                save(run, 2 + fail_at)
                save_best(run, network(1 + fail_at), {"epoch": 1 + fail_at})
                break
            except ResourceError as error:
                said = f"{error.exit_code} {error}"
            calls = MANY
            assert said.startswith("5 cannot write ")
            assert os.strerror(number) in said
            assert newest[0] <= loaded(run) <= 2 + fail_at
            assert newest[1] <= best(run) <= 1 + fail_at
            newest = (loaded(run), best(run))
            if call != "unlink":  # a file that may not be removed stays until the next start sweeps it
                assert not list(run.checkpoints_dir.glob(".*"))
        assert 1 < fail_at < MANY - 1

    def test_a_file_that_grows_too_large(self, run: Run) -> None:
        """A write that really fails half-way, without root: the process may write files of 10,000 bytes at most."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
                save(run, 3)
            except ResourceError as error:
                code = error.exit_code if "(0.0 MiB are needed)" in str(error) and "free space" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        assert loaded(run) == 2
        assert not list(run.checkpoints_dir.glob(".*"))


class TestDamage:
    @pytest.mark.parametrize("how", ["cut", "flip", "swap", "gone", "record"])
    def test_falls_back_and_says_so(self, how: str, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        tensors, record = run.state_paths(2)
        data = bytearray(tensors.read_bytes())
        if how == "cut":
            tensors.write_bytes(data[:-1])
        elif how == "flip":
            data[len(data) // 2] ^= 1
            tensors.write_bytes(data)
        elif how == "swap":  # the tensors of another run's state under this run's record
            other = Run.create(tmp_path / "other", ExperimentSpec(seed=1))
            save_state_pair(other, 2, {"a": torch.full((5000,), 9.0)}, RECORD)
            shutil.copy(other.state_paths(2)[0], tensors)
        elif how == "gone":
            tensors.unlink()
        else:
            record.write_text(record.read_text()[:-20])
        assert loaded(run) == 1
        assert "checkpoint last-00000002 is damaged" in capsys.readouterr().err
        save(run, 3)  # the damaged one no longer counts as the one before
        assert [path.stem for path in run.state_records()] == ["last-00000003", "last-00000002"]
        save(run, 2)  # or, continuing from 1, it comes to 2 again
        assert [path.stem for path in run.state_records()] == ["last-00000002"]

    def test_every_one_damaged(self, run: Run) -> None:
        for path in run.checkpoints_dir.glob("last-*.safetensors"):
            path.write_bytes(b"")
        with pytest.raises(ModelError, match="every checkpoint is damaged; delete the checkpoints folder"):
            load_state_pair(run)

    def test_one_that_may_not_be_read_is_not_damaged(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: Any, **__: Any) -> str:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "read_text", refused)
        with pytest.raises(ResourceError, match="checkpoint last-00000002 cannot be read; give read permission"):
            load_state_pair(run)

    def test_before_the_first_state(self, tmp_path: Path) -> None:
        run = Run.create(tmp_path / "run", ExperimentSpec())
        assert load_state_pair(run) is None
        run.checkpoints_dir.mkdir()
        run.state_paths(1)[0].write_bytes(b"killed before its record")
        assert load_state_pair(run) is None
        run.sweep()
        assert not list(run.checkpoints_dir.iterdir())

    def test_best_weights_that_are_damaged(self, run: Run) -> None:
        data = bytearray(run.best_weights_path.read_bytes())
        data[-1] ^= 1
        run.best_weights_path.write_bytes(data)
        with pytest.raises(ModelError, match="gone or damaged; restore them"):
            require_best(run)


IDENTITY = {"run_id": "1" * 16, "config_sha256": "2" * 64, "manifest_sha256": "3" * 64, "splits_sha256": "4" * 64}
CONFIG = ExperimentSpec().model_dump(mode="json")


class TestIdentity:
    @pytest.fixture
    def record(self) -> dict[str, Any]:
        return json.loads(json.dumps({**IDENTITY, "config": CONFIG}))

    def test_the_same_passes(self, run: Run, record: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        require_same(run, record, IDENTITY, CONFIG)
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(("key", "what"), [("run_id", "run"), ("manifest_sha256", "manifest"), ("splits_sha256", "split")])
    def test_of_another(self, key: str, what: str, run: Run, record: dict[str, Any]) -> None:
        record[key] = "abcdefabcdefabcdef"
        with pytest.raises(ModelError, match=rf"made with another {what} \(abcdefabcdef, here ") as caught:
            require_same(run, record, IDENTITY, CONFIG)
        assert caught.value.exit_code == 4

    def test_the_settings_that_differ_are_named(self, run: Run, record: dict[str, Any]) -> None:
        record["config_sha256"] = "5" * 64
        record["config"]["train"]["epochs"] = 7
        record["config"]["seed"] = 1
        record["config"]["train"]["num_workers"] = 9
        with pytest.raises(ModelError, match=r"another configuration \(seed 1 -> 42, train.epochs 7 -> 40\); use another run"):
            require_same(run, record, IDENTITY, CONFIG)

    def test_what_changes_no_number_is_said(self, run: Run, record: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
        record["config_sha256"] = "5" * 64
        require_same(run, record, IDENTITY, CONFIG)
        assert capsys.readouterr().err == ""  # a comment in the file
        record["config"]["train"]["num_workers"] = 9
        require_same(run, record, IDENTITY, CONFIG)
        assert "train.num_workers changed since the checkpoint; the result stays the same" in capsys.readouterr().err


@pytest.mark.parametrize("decay", [None, 0.9])
def test_disk_bytes_are_enough_and_not_far_too_many(decay: float | None, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", ExperimentSpec())
    model = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300))
    optimizer = torch.optim.AdamW(model.parameters())
    learner = Learner(model, optimizer, Ema(model, decay) if decay else None, torch.amp.GradScaler("cpu", enabled=False))
    model(torch.zeros(2, 300)).sum().backward()
    optimizer.step()
    most = 0
    for watched in files_written(run, learner):
        most = max(most, watched)
    assert most <= learner.disk_bytes() <= 1.2 * most


def files_written(run: Run, learner: Learner) -> Iterator[int]:
    """Bytes in the checkpoints folder at each flush of five epochs."""
    sizes: list[int] = []

    def fsync(descriptor: int, original: Callable[[int], None] = os.fsync) -> None:
        original(descriptor)
        sizes.append(sum(path.stat().st_size for path in run.checkpoints_dir.iterdir()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        for step in range(5):
            tensors, record = learner.pack()
            save_best(run, learner.model, {"epoch": step})
            save_state_pair(run, step, tensors, {**RECORD, **record})
    return iter(sizes)
