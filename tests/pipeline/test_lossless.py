"""What goes wrong while it trains: disk, permission, flush, memory, decoders, images. Nothing is lost or half-written."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import traceback
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from deadly import DeadlyStore
from mounts import own_mounts
from training import another, built, outcome, plain_runtime, stubs, tiny_run, tiny_set, tiny_spec

from dermalyze.cli import main
from dermalyze.core.run import Run
from dermalyze.core.runtime import applied
from dermalyze.data.splitting import read_division
from dermalyze.data.store import ImageStore
from dermalyze.errors import DataError, InterruptedRunError, ModelError, ResourceError
from dermalyze.models.classifier import Classifier
from dermalyze.stages.train import train
from dermalyze.training import loop
from dermalyze.training.checkpoint import load_state_pair
from dermalyze.training.setup import Training

CPU_ERROR = "[enforce fail at alloc_cpu.cpp:128] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
FROZEN = {"strategy": {"kind": "frozen"}, "model": {"head": {"kind": "linear"}}}  # no BatchNorm that learns


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_set(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(scope="module")
def base(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("tiny-base") / "run", images)


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DERMALYZE_CACHE", str(tmp_path_factory.mktemp("tiny-cache")))
        yield


@pytest.fixture(autouse=True)
def _own_cache(_one_cache: None) -> None:
    """Instead of the folder's: here all tests may share one."""


@pytest.fixture(scope="module")
def whole(base: Run, images: Path, tmp_path_factory: pytest.TempPathFactory, _one_cache: None) -> Run:
    """Trained without a fault."""
    run = another(base, tmp_path_factory.mktemp("tiny-whole") / "run", tiny_spec(images))
    train(run, run.config())
    return run


@pytest.fixture
def run(base: Run, images: Path, tmp_path: Path) -> Run:
    return another(base, tmp_path / "run", tiny_spec(images))


def at_step(number: int, act: Callable[[Training], None], patch: pytest.MonkeyPatch) -> None:
    """Do something just before optimizer step `number`."""
    original = loop.step

    def step(training: Training, *arguments: Any) -> None:
        if training.state.progress.step == number:
            act(training)
        original(training, *arguments)

    patch.setattr(loop, "step", step)


class TestAnothersCheckpoint:
    def test_of_a_run_configured_alike(self, whole: Run, run: Run) -> None:
        shutil.copytree(whole.checkpoints_dir, run.checkpoints_dir)
        before = sorted(path.name for path in run.checkpoints_dir.iterdir())
        with pytest.raises(ModelError, match=r"made with another run \([0-9a-f]{12}, here [0-9a-f]{12}\)") as caught:
            train(run, run.config())
        assert caught.value.exit_code == 4
        assert sorted(path.name for path in run.checkpoints_dir.iterdir()) == before

    def test_a_copy_of_a_run_is_the_same_run(self, whole: Run, tmp_path: Path) -> None:
        copy = Run(Path(shutil.copytree(whole.root, tmp_path / "copy")))
        copy.history_path.unlink()
        train(copy, copy.config())
        assert outcome(copy) == outcome(whole)

    def test_best_weights_of_another(self, whole: Run, base: Run, images: Path, tmp_path: Path) -> None:
        run = Run(Path(shutil.copytree(whole.root, tmp_path / "run")))
        other = another(base, tmp_path / "other", tiny_spec(images, epochs=1, ema=None))
        train(other, other.config())
        shutil.copy(other.best_weights_path, run.best_weights_path)
        with pytest.raises(ModelError, match=r"best\.safetensors or its record is gone or damaged"):
            train(run, run.config())

    def test_settings_that_differ_are_named(self, whole: Run, tmp_path: Path) -> None:
        run = Run(Path(shutil.copytree(whole.root, tmp_path / "run")))
        run.config_path.write_text(run.config_path.read_text().replace("epochs: 3", "epochs: 4"))
        with pytest.raises(ModelError, match=r"another configuration \(train\.epochs 3 -> 4\)"):
            train(run, run.config())


class TestDisk:
    def test_too_little_space_is_said_before_the_first_epoch(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 100_000))
        with pytest.raises(ResourceError, match=r"checkpoints need 0\.2 MiB, 0\.1 MiB are free; free space on") as caught:
            train(run, run.config())
        assert caught.value.exit_code == 5
        assert not run.metrics_path.exists()
        assert not list(run.checkpoints_dir.iterdir())

    @pytest.mark.parametrize("failing", [1, 9, 40])
    def test_a_flush_that_fails(self, failing: int, run: Run, whole: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        """The n-th flush from the first step on; the same command afterwards comes to the same bits."""
        calls, original = 0, os.fsync

        def fsync(descriptor: int) -> None:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            original(descriptor)

        with monkeypatch.context() as patch:
            at_step(0, lambda _: patch.setattr(os, "fsync", fsync), patch)
            with pytest.raises(ResourceError, match=r"cannot write .*: Input/output error; check the disk") as caught:
                train(run, run.config())
        assert caught.value.exit_code == 5
        assert not stubs(run)
        train(run, run.config())
        assert outcome(run) == outcome(whole)

    @pytest.mark.skipif(not own_mounts(), reason="needs root and mount namespaces")
    def test_a_disk_that_fills_up_or_turns_read_only(self, base: Run, images: Path, whole: Run, tmp_path: Path) -> None:
        """A real file system of 1 MB: filled at one step, read-only at another, refused to a cache; then all is well."""
        program = tmp_path / "program.py"
        program.write_text(ON_A_SMALL_DISK)
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = 'mount -t tmpfs -o size=1m tmpfs "$2" && exec "$0" "$@"'
        support = str(Path(__file__).parents[1] / "support")
        words = ["unshare", "-m", "bash", "-c", mount, sys.executable, str(program), str(disk), str(base.root), str(images)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([support, os.environ.get("PYTHONPATH", "")])}
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["cache"][0] == 5
        assert "No space left on device; free space on that disk" in told["cache"][1]
        assert told["full"][:2] == [5, 3]
        assert "cannot write last-00000004.safetensors: No space left on device; free space" in told["full"][2]
        assert told["full"][2].endswith("MiB are needed)")
        assert told["read-only"][:2] == [5, 6]
        assert "Read-only file system; give write permission" in told["read-only"][2]
        assert told["stubs"] == []
        expected = outcome(whole)
        assert told["weights"] == expected["best weights"].hex()
        assert told["state"] == expected["last state"].hex()


ON_A_SMALL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
import pytest
from training import another, outcome, stubs, tiny_spec
from dermalyze.errors import ResourceError
from dermalyze.core.run import Run
from dermalyze.data import cache
from dermalyze.training.checkpoint import load_state_pair
from dermalyze.stages.train import train
from dermalyze.training import loop
from dermalyze.training.setup import Training
import torch
torch.set_num_threads(1)

disk, base, images = map(Path, sys.argv[1:4])
filler = disk / "filler"

def fill():
    with filler.open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)): pass
        except OSError: pass

def read_only():  # a second mount on top, which may be read-only although the first has files open
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)

run = another(Run(base), disk / "run", tiny_spec(images))
told = {}

os.environ["DERMALYZE_CACHE"] = str(disk / "cache")
fill()
with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cache, "require_space", lambda *a: None)  # as if it filled up only now
    filler.write_bytes(bytes(filler.stat().st_size - 20000))  # room for the small files
    with pytest.raises(ResourceError) as caught:
        train(run, run.config())
told["cache"] = [caught.value.exit_code, str(caught.value)]
told["stubs"] = [path.name for path in (disk / "cache").iterdir()]
filler.unlink()
os.environ["DERMALYZE_CACHE"] = str(base.parent / "cache")

original = loop.step
for name, number, act in (("full", 3, fill), ("read-only", 6, read_only)):
    def step(training, *arguments):
        if training.state.progress.step == number: act()
        original(training, *arguments)
    loop.step = step
    with pytest.raises(ResourceError) as caught:
        train(run, run.config())
    loop.step = original
    filler.unlink() if name == "full" else subprocess.run(["umount", str(disk)], check=True)
    told[name] = [caught.value.exit_code, load_state_pair(run)[1]["step"], str(caught.value)]
    if name == "full": told["stubs"] += [path.name for path in stubs(run)]
train(run, run.config())
told["stubs"] += [path.name for path in stubs(run)]
told["weights"], told["state"] = outcome(run)["best weights"].hex(), outcome(run)["last state"].hex()
print(json.dumps(told))
"""


def hungry(limit: int, patch: pytest.MonkeyPatch, error: Callable[[], Exception] = lambda: RuntimeError(CPU_ERROR)) -> None:
    """Let a pass of more than `limit` images in training run out of memory."""
    original = Classifier.forward

    def forward(self: Classifier, inputs: Any) -> torch.Tensor:
        result = original(self, inputs)  # so that the failed attempt has left its traces
        if self.training and len(result) > limit:
            raise error()
        return result

    patch.setattr(Classifier, "forward", forward)


def weights_after_steps(run: Run, steps: int = 3) -> tuple[dict[str, torch.Tensor], Training]:
    """The network after steps of 16 images each, cut as the run is configured."""
    size = run.config().train.batch_size
    run.checkpoints_dir.mkdir(exist_ok=True)
    with applied(plain_runtime()):
        training = built(run, plain_runtime())
        training.model.train()
        for number in range(steps):
            members = [np.arange(start, start + size) for start in range(0, 16, size)]
            order = (np.arange(16) + 5 * number) % len(training.rows["train"])
            rows = [training.rows["train"][order[member]] for member in members]
            loop.step(training, number, members, order, training.loader.batches(rows))
    return training.model.state_dict(), training


class TestMemory:
    SETTINGS = {  # noqa: RUF012
        "imbalance": {"kind": "weights"}, "augment": {"policy": "conservative", "mixup": 0.3}, "ema": None, **FROZEN,
    }  # fmt: skip

    @pytest.mark.parametrize(
        "error",
        [lambda: RuntimeError(CPU_ERROR), MemoryError, lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")],
        ids=["cpu", "python", "cuda"],
    )
    def test_equals_a_run_configured_so(
        self, error: Callable[[], Exception], base: Run, images: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        small = another(base, tmp_path / "small", tiny_spec(images, batch_size=4, accumulate=4, **self.SETTINGS))
        expected, _ = weights_after_steps(small)
        big = another(base, tmp_path / "big", tiny_spec(images, batch_size=16, accumulate=1, **self.SETTINGS))
        hungry(4, monkeypatch, error)
        capsys.readouterr()
        found, training = weights_after_steps(big)
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        assert training.state.progress.sums[0] == 48
        said = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
        assert said == [
            "out of memory: micro-batches of 8 instead of 16 images, the same effective batch",
            "out of memory: micro-batches of 4 instead of 8 images, the same effective batch",
        ]

    def test_it_is_recorded_and_a_resume_keeps_it(
        self, base: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = [another(base, tmp_path / name, tiny_spec(images, batch_size=8, accumulate=1)) for name in ("one", "two")]
        with monkeypatch.context() as patch:
            at_step(3, lambda _: hungry(4, patch), patch)
            result = train(runs[0], runs[0].config())
        assert result.micro_batch == 4
        with monkeypatch.context() as patch:
            at_step(3, lambda training: (hungry(4, patch), setattr(training.request, "signal", "SIGTERM")), patch)
            with pytest.raises(InterruptedRunError):
                train(runs[1], runs[1].config())
        assert load_state_pair(runs[1])[1]["halvings"] == 1  # type: ignore[index]
        train(runs[1], runs[1].config())  # with memory enough, and still in fours
        assert outcome(runs[0]) == outcome(runs[1])
        assert outcome(runs[0])["history"]["micro_batch"] == [8, 4, 4]

    def test_in_the_smallest_pass_it_ends(
        self, base: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, changes, least in (("norm", {}, 2), ("none", FROZEN, 1)):
            run = another(base, tmp_path / name, tiny_spec(images, **changes))
            with monkeypatch.context() as patch:
                hungry(0, patch)
                with pytest.raises(ResourceError, match=f"out of memory with {least} images per pass, and fewer") as caught:
                    train(run, run.config())
            assert caught.value.exit_code == 5
            assert ("BatchNorm's statistics are of the smaller ones" in capsys.readouterr().err) == (least == 2)
            assert not stubs(run)
            train(run, run.config())

    def test_elsewhere_it_ends_with_what_to_do(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def grow(*_: Any) -> None:
            raise RuntimeError(CPU_ERROR)

        monkeypatch.setattr(torch.optim.AdamW, "step", grow)
        with pytest.raises(
            ResourceError, match=r"out of memory: .*; the last checkpoint is kept; close other programs and run"
        ):
            train(run, run.config())

    @pytest.mark.slow
    def test_under_a_real_limit(self, base: Run, images: Path, tmp_path: Path) -> None:
        """`ulimit -v` ever tighter: it continues in smaller passes, or ends with 5 and one line; never with a traceback."""
        spec = tiny_spec(images, epochs=1, batch_size=24, accumulate=1, model={"kwargs": {"channels": [16, 32]}})
        spec = spec.model_copy(update={"preprocess": spec.preprocess.model_copy(update={"size": (192, 192)})})
        told = ""
        for more_mib in (300, 150, 60, 20, 5):
            run, log = another(base, tmp_path / f"run{more_mib}", spec), tmp_path / "log"
            pid = os.fork()
            if pid == 0:
                try:
                    sys.stderr = log.open("w")
                    pages = int(Path("/proc/self/statm").read_text().split()[0])
                    limit = pages * resource.getpagesize() + more_mib * 2**20
                    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                    main(["train", str(run.root)])
                except SystemExit as ended:
                    sys.stderr.flush()
                    os._exit(int(ended.code or 0))
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
                finally:
                    os._exit(99)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            told += log.read_text()
            assert code in (0, 5), log.read_text()
            assert not stubs(run)
        assert "micro-batches of 12 instead of 24 images" in told
        assert "error: out of memory" in told

    def test_other_errors_are_not_taken_for_it(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        hungry(0, monkeypatch, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        with pytest.raises(RuntimeError, match="shapes"):
            train(run, run.config())


class TestImages:
    """Images that vanish or change while they are streamed."""

    @pytest.fixture
    def own(self, images: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(images, tmp_path / "set"))

    def streaming(self, base: Run, own: Path, root: Path, limit: float = 0.1, **changes: Any) -> Run:
        spec = tiny_spec(own, data={"max_bad_fraction": limit}, cache="stream", num_workers=0, **changes)
        return another(base, root, spec)

    def victims(self, run: Run, own: Path, part: str, count: int) -> list[tuple[str, Path]]:
        frame, parts = read_division(run)
        rows = frame[parts == part].iloc[:count]
        return [(row.image_id, own / row.path) for row in rows.itertuples()]

    def test_one_goes_on_without_it_and_a_resume_does_the_same(
        self, base: Run, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = []
        for stop in (None, 5, 7):
            run = self.streaming(base, own, tmp_path / f"run{stop}")
            (name, victim), before = self.victims(run, own, "train", 1)[0], b""
            before = victim.read_bytes()
            with monkeypatch.context() as patch:
                at_step(4, lambda _, victim=victim: victim.write_bytes(b""), patch)
                if stop is None:
                    result = train(run, run.config())
                    assert result.quarantined == 1
                    assert "1 images could no longer be read" in "\n".join(result.lines())
                    told = capsys.readouterr().err
                    assert told.count(f": {name} (its bytes changed since prepare); left out from now on") == 1
                    assert victim.name not in told
                else:
                    at_step(stop, lambda training: setattr(training.request, "signal", "SIGTERM"), patch)
                    with pytest.raises(InterruptedRunError):
                        train(run, run.config())
            victim.write_bytes(before)  # it is back, and stays out
            train(run, run.config())
            found.append(outcome(run))
            assert load_state_pair(run)[1]["quarantined"] == {name: "its bytes changed since prepare"}  # type: ignore[index]
        assert found[0]["history"]["quarantined"][-1] == 1
        assert all(each == found[0] for each in found)

    def test_nothing_but_its_place_changes(self, base: Run, own: Path, whole: Run, tmp_path: Path) -> None:
        run = self.streaming(base, own, tmp_path / "run")
        train(run, run.config())
        expected = outcome(whole)
        found = outcome(run)
        assert all(found[key] == expected[key] for key in ("best weights", "last state", "metrics"))

    def test_more_than_the_limit_stop_it(
        self, base: Run, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = self.streaming(base, own, tmp_path / "run", limit=0.05)
        victims = self.victims(run, own, "train", 8)
        kept = [victim.read_bytes() for _, victim in victims]
        with monkeypatch.context() as patch:
            at_step(4, lambda _: [victim.unlink() for _, victim in victims], patch)
            with pytest.raises(
                DataError, match=r"of \d+ images can no longer be read .*at most 5\.0%.*file is missing"
            ) as caught:
                train(run, run.config())
        assert caught.value.exit_code == 3
        assert not any(victim.name in str(caught.value) for _, victim in victims)
        assert any(f"is {name}:" in str(caught.value) for name, _ in victims)
        assert load_state_pair(run) is not None
        for (_, victim), data in zip(victims, kept, strict=True):
            victim.write_bytes(data)
        assert train(run, run.config()).epochs == 3

    def test_of_the_validation_part(self, base: Run, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = self.streaming(base, own, tmp_path / "run")
        name, victim = self.victims(run, own, "val", 1)[0]
        at_step(4, lambda _: shutil.copy(next(p for p in own.rglob("*.jpg") if p != victim), victim), monkeypatch)
        result = train(run, run.config())
        assert result.quarantined == 1
        assert list(load_state_pair(run)[1]["quarantined"]) == [name]  # type: ignore[index]
        assert outcome(run)["history"]["quarantined"] == [0, 1, 1]

    def test_once_in_the_cache_they_may_vanish(
        self, base: Run, own: Path, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = another(base, tmp_path / "run", tiny_spec(own))
        at_step(3, lambda _: [path.unlink() for path in own.rglob("*.jpg")], monkeypatch)
        train(run, run.config())
        assert outcome(run)["best weights"] == outcome(whole)["best weights"]

    def test_one_that_kills_its_decoder(self, base: Run, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = another(base, tmp_path / "run", tiny_spec(own, cache="stream", num_workers=1))
        name, victim = self.victims(run, own, "train", 1)[0]
        store = DeadlyStore((("", own.resolve()),), victim=str(victim.relative_to(own)), spared=os.getpid())
        monkeypatch.setattr(ImageStore, "open", lambda spec: store)
        with pytest.raises(ResourceError, match=f"image {name}: the process that decodes it was killed again") as caught:
            train(run, run.config())
        assert caught.value.exit_code == 5
        assert victim.name not in str(caught.value)
        assert not stubs(run)
