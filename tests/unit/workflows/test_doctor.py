"""The doctor: every state of each check, the base installation without torch, and the exit code."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import dermalyze
from dermalyze.cli import app
from dermalyze.cli.failures import EXTRAS
from dermalyze.models import torch_guard
from dermalyze.workflows import doctor as module
from dermalyze.workflows.doctor import GIB, Check, DoctorResult, doctor

Usage = namedtuple("Usage", "total used free")


ANSWERS = module.answers


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "answers", lambda address, wait_s: True)
    monkeypatch.setenv("DERMALYZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def by_name(result: DoctorResult) -> dict[str, Check]:
    return {check.name: check for check in result.checks}


def test_this_machine_is_looked_at_and_left_as_it_was(tmp_path: Path) -> None:
    result = doctor(tmp_path / "not" / "made" / "yet")
    found = by_name(result)
    assert {"Python", "torch", "torchvision", "memory", "threads", "shared memory", "weights hub"} <= set(found)
    assert found["devices to predict"].found.startswith("CPU, by onnxruntime "), "the one that sessions are opened on"
    assert list(tmp_path.iterdir()) == []
    assert result.usable
    assert all(bool(check.remedy) == (check.state != "good") for check in result.checks), "a remedy where it is not good"
    assert json.loads(json.dumps(result.as_dict()))["usable"] is True
    assert result.lines()[-1] == "ready to train"


@pytest.mark.parametrize(
    ("state", "expected"), [("absent", "blocks"), ("matching", "good"), ("repaired", "note")], ids=lambda value: value
)
def test_the_three_states_of_torchvision(state: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_guard, "install", lambda: state)
    assert module.torch_pair()[1].state == expected


def test_a_torchvision_that_fails_otherwise_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("undefined symbol")

    monkeypatch.setattr(torch_guard, "install", broken)
    check = module.torch_pair()[1]
    assert (check.state, check.found) == ("blocks", "cannot be imported (RuntimeError)")


@pytest.mark.parametrize(
    ("free_gib", "state"), [(0.1, "blocks"), (2.0, "note"), (80.0, "good")], ids=["none", "little", "enough"]
)
def test_disk(free_gib: float, state: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 * GIB, 0, int(free_gib * GIB)))
    check = module.disk("disk of the runs", tmp_path)
    assert (check.state, check.found) == (state, f"{free_gib:.1f} GiB free")


@pytest.mark.parametrize(
    ("free_gib", "state"), [(0.2, "blocks"), (2.0, "note"), (9.0, "good")], ids=["none", "little", "enough"]
)
def test_memory(free_gib: float, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda: (int(free_gib * GIB), 16 * GIB))
    assert module.memory().state == state


def test_a_folder_that_cannot_be_written_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(path: Path, text: str) -> None:
        raise module.ResourceError("read-only")

    monkeypatch.setattr(module, "write_text", refused)
    result = doctor(tmp_path)
    assert not result.usable
    assert result.lines()[-1] == "training is blocked by: writing runs, writing the image cache"


def test_small_shared_memory_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 64 * 2**20))
    monkeypatch.setattr(Path, "is_dir", lambda self: True)
    check = module.shared_memory()
    assert (check.state, check.found) == ("note", "64 MiB free")
    assert "train.num_workers=0" in check.remedy


def test_fewer_threads_than_cores_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert module.threads().state == "note"


def test_a_hub_that_does_not_answer_is_not_waited_for_and_never_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "answers", lambda address, wait_s: time.sleep(60))
    assert module.hub(wait_s=0.01).state == "note"
    monkeypatch.setattr(module, "answers", lambda address, wait_s: False)
    assert module.hub().found == "not reachable"


def test_the_hub_is_not_asked_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "answers", lambda address, wait_s: asked.append(address))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert module.hub().state == "note"
    assert asked == []


def test_only_a_web_address_is_asked() -> None:
    assert ANSWERS("file:///etc/passwd", 1.0) is False


def test_without_the_train_extra_it_says_what_is_missing_and_ends_with_5(tmp_path: Path) -> None:
    """A fresh interpreter in which nothing of the extra can be imported or found."""
    code = """
import importlib.metadata, sys
gone = set(sys.argv[1].split())
for name in gone:
    sys.modules[name] = None
version = importlib.metadata.version
def without(name):
    if name in gone:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without
from dermalyze.cli import main
main(["doctor", "--json"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, EXTRAS["train"]], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(dermalyze.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    answer = json.loads(done.stdout)
    blocking = {check["name"]: check["remedy"] for check in answer["checks"] if check["state"] == "blocks"}
    assert blocking == dict.fromkeys(("torch", "packages to train"), "pip install 'dermalyze[train]'")
    assert answer["usable"] is False


def test_the_command_ends_with_0_where_all_is_well(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "ready to train"
