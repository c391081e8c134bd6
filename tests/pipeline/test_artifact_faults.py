"""Exports that fail, are killed or are damaged afterwards: nothing half-written, the right exit code, one line."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dermalyze.artifact.artifact import Artifact, open_export
from dermalyze.artifact.record import sealed
from dermalyze.core.atomic import sha256_file
from dermalyze.errors import DataError, ModelError, ResourceError, UsageError
from dermalyze.imaging.preprocess import Preprocessing
from dermalyze.stages import export as stage
from dermalyze.stages.export import export, publish


def snapshot(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.iterdir()} if folder.exists() else {}


def leftovers(run: Any) -> list[str]:
    return sorted(path.name for path in run.root.iterdir() if path.name.endswith(".tmp"))


@pytest.fixture
def world(copy_of: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """An exported run; exporting it again takes the graph that is there (the exporter itself takes seconds)."""
    made = copy_of()
    graph = (made.run.artifact_dir / "model.onnx").read_bytes()
    monkeypatch.setattr(stage, "to_onnx", lambda *_: graph)
    return made


@pytest.mark.parametrize("again", [True, False], ids=["over an old export", "first export"])
@pytest.mark.parametrize("fault", ["other numbers", "not a number"])
def test_parity_failure_leaves_no_new_export(
    world: Any, save_checkpoint: Any, monkeypatch: pytest.MonkeyPatch, fault: str, again: bool
) -> None:
    save_checkpoint(world.run, world.spec, seed=3)  # the graph is now another network's
    if fault == "not a number":
        monkeypatch.setattr(stage.Graph, "run", lambda *_: (np.full((3, 3), np.nan), np.full((3, 16), np.nan)))
    before = snapshot(world.run.artifact_dir)
    if not again:
        for path in world.run.artifact_dir.iterdir():
            path.unlink()
        world.run.artifact_dir.rmdir()
        before = {}
    with pytest.raises(ModelError, match=r"numbers are not PyTorch's.*nothing was exported") as caught:
        export(world.run, world.spec)
    assert caught.value.exit_code == 4
    assert snapshot(world.run.artifact_dir) == before
    assert leftovers(world.run) == []


def test_half_precision_overflow_is_a_parity_failure() -> None:
    """A graph that computes in fp16 overflows where fp32 doesn't; parity has to see it."""
    import torch

    class Large(torch.nn.Module):
        def __init__(self, half: bool) -> None:
            super().__init__()
            self.half_precision = half

        def forward_with_embedding(self, inputs: Any) -> Any:
            x = inputs["image"].mean((2, 3)) * 100_000
            x = x.half() if self.half_precision else x
            return (x / 1e4).float(), x.float() / 1e6

    p = Preprocessing("squash", 16, 16, 1.0, (0.5,) * 3, (0.1,) * 3)
    ours, theirs = (stage.Deployed(Large(half), p, (p.image,)).eval() for half in (False, True))
    graph = stage.Graph(stage.to_onnx(theirs), [p.image], classes=3, threads=1)
    with pytest.raises(ModelError, match=r"NaN or infinity|not PyTorch's"):
        stage.measure_parity(ours, graph)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_disk_full_or_failing(world: Any, monkeypatch: pytest.MonkeyPatch, code: int, call: int) -> None:
    """The n-th flush fails: of a file or of the staging folder."""
    before, real, calls = snapshot(world.run.artifact_dir), os.fsync, []

    def failing(descriptor: int) -> None:
        calls.append(1)
        if len(calls) == call:
            raise OSError(code, os.strerror(code))
        real(descriptor)

    files = {"a": b"1", "b": b"2", "c": b"3"}
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(ResourceError) as caught:
            publish(files, world.run.artifact_dir, check=lambda _: None)
    assert caught.value.exit_code == 5
    assert snapshot(world.run.artifact_dir) == before
    assert leftovers(world.run) == []


@pytest.mark.parametrize("moment", ["fsync", "rename"])
def test_killed_half_way(world: Any, moment: str) -> None:
    """SIGKILL while writing, and just before the new folder takes its place."""
    before = snapshot(world.run.artifact_dir)
    code = (
        "import os, pathlib, signal, sys\n"
        "from dermalyze.stages.export import publish\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"setattr(*((os, 'fsync') if {moment!r} == 'fsync' else (pathlib.Path, 'rename')), die)\n"
        "publish({'a': b'1', 'b': b'2'}, pathlib.Path(sys.argv[1]), check=lambda _: None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(world.run.artifact_dir)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert snapshot(world.run.artifact_dir) == before
    assert Artifact.open(world.run.artifact_dir).classes
    assert len(leftovers(world.run)) in (1, 2)
    export(world.run, world.spec)
    assert leftovers(world.run) == []
    assert snapshot(world.run.artifact_dir) == before


def test_refused_by_its_own_check_leaves_the_old_one(world: Any) -> None:
    before = snapshot(world.run.artifact_dir)
    with pytest.raises(ModelError):
        publish({"artifact.json": b"{}"}, world.run.artifact_dir, check=Artifact.open)
    assert snapshot(world.run.artifact_dir) == before
    assert leftovers(world.run) == []


def test_export_needs_a_checkpoint_of_this_manifest(world: Any, save_checkpoint: Any) -> None:
    save_checkpoint(world.run, world.spec, manifest_sha256="0" * 64)
    with pytest.raises(ModelError, match="another manifest"):
        export(world.run, world.spec)
    world.run.best_record_path.unlink()
    with pytest.raises(UsageError, match="dermalyze train"):
        export(world.run, world.spec)


def test_damaged_checkpoint(world: Any) -> None:
    before = snapshot(world.run.artifact_dir)
    data = bytearray(world.run.best_weights_path.read_bytes())
    data[-5] ^= 1
    world.run.best_weights_path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        export(world.run, world.spec)
    assert caught.value.exit_code == 4
    assert snapshot(world.run.artifact_dir) == before


def test_run_in_use(world: Any) -> None:
    with world.run.lock(), pytest.raises(UsageError, match="another process"):
        export(world.run, world.spec)


def test_network_that_onnx_cannot_hold() -> None:
    import torch

    class Odd(torch.nn.Module):
        def forward_with_embedding(self, inputs: Any) -> Any:
            images = inputs["image"]
            return torch.linalg.eigvals(images.mean((2,))[..., :3] @ torch.ones(3, 3)).real, images.mean((2, 3))

    p = Preprocessing("squash", 8, 8, 1.0, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ModelError, match="cannot be exported to ONNX") as caught:
        stage.to_onnx(stage.Deployed(Odd(), p, (p.image,)).eval())
    assert len(str(caught.value)) < 500


def test_accepted_leak_and_local_paths(world: Any, save_checkpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for a leak goes along; the folder in which the weights lay doesn't."""
    best = json.loads(world.run.best_record_path.read_text())
    model = best["model"] | {"weights": "/home/somebody/weights.safetensors"}
    save_checkpoint(world.run, world.spec, accepted_leak="published split", model=model)
    export(world.run, world.spec)
    record = Artifact.open(world.run.artifact_dir).record
    assert record.accepted_leak == "published split"
    assert record.model["weights"] == "weights.safetensors"


@pytest.mark.parametrize(
    ("damage", "exit_code", "said"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"\x80\x04."), 4, "SHA-256"),
        (lambda folder: (folder / "artifact.json").unlink(), 4, "not an artifact"),
        (lambda folder: (folder / "extra").write_bytes(b""), 4, "extra"),
    ],
)
def test_command_line_ends_with_one_line(world: Any, damage: Callable[[Path], Any], exit_code: int, said: str) -> None:
    damage(world.run.artifact_dir)
    code = "import sys; from dermalyze.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", str(world.run.root), str(world.images[0])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ["nv", "my class", "mel"]}, "or in another order"),
        ({"preprocessing": None}, "not a checkpoint record"),
        ({"classes": 3}, "not a checkpoint record"),
    ],
)
def test_an_edited_checkpoint_record_is_refused(world: Any, change: dict[str, Any], said: str) -> None:
    """Class names in another order would be the wrong answers, silently."""
    before = snapshot(world.run.artifact_dir)
    record = json.loads(world.run.best_record_path.read_text())
    world.run.best_record_path.write_text(json.dumps({**record, **change}))
    with pytest.raises(ModelError, match=said) as caught:
        export(world.run, world.spec)
    assert (caught.value.exit_code, snapshot(world.run.artifact_dir), leftovers(world.run)) == (4, before, [])


def test_classes_swapped_in_the_artifact_are_not_measured(world: Any) -> None:
    path = world.run.artifact_record_path
    record = json.loads(path.read_text())
    record["classes"].reverse()
    path.write_bytes(sealed(record))
    with pytest.raises(ModelError, match=r"classes .* are not the checkpoint's"):
        open_export(world.run, world.spec.inference.recipe)


def test_a_manifest_changed_after_the_split_is_data_refused(world: Any) -> None:
    world.run.manifest_path.write_bytes(world.run.manifest_path.read_bytes() + b"x")
    with pytest.raises(DataError, match="not the one that was split"):
        export(world.run, world.spec)


@pytest.mark.parametrize(("name", "said"), [(".DS_Store", "remove them"), ("model.onnx", "are missing")])
def test_strangers_and_gaps_have_their_remedy(world: Any, name: str, said: str) -> None:
    path = world.run.artifact_dir / name
    path.unlink() if path.exists() else path.write_text("")
    with pytest.raises(ModelError, match=said):
        Artifact.open(world.run.artifact_dir)
