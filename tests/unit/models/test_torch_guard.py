"""The guard in its three states, each in a fresh process with a made-up torchvision."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = """
import torch
import torchvision.extension
@torch.library.register_fake("torchvision::nms")
def meta_nms(dets, scores, iou_threshold):
    return dets.new_empty((0,), dtype=torch.long)
@torch.library.register_fake("torchvision::qnms")
def meta_qnms(dets, scores, iou_threshold):
    return dets.new_empty((0,), dtype=torch.long)
"""
MATCHING = """
import torch
torch.library.define("torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
torch.library.impl("torchvision::nms", "cpu", lambda dets, scores, iou_threshold: torch.tensor([41]))
"""


def run(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process that sees the packages in `folder` first."""
    lines = f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=120, check=False)


def fake(folder: Path, init: str) -> None:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    (package / "extension.py").write_text("import itertools\nloads = itertools.count()\n")


STATES = (
    "from dermalyze.models.torch_guard import install\nimport sys\nprint(install(), install(), 'torchvision' in sys.modules)"
)


def test_broken_is_repaired(tmp_path: Path) -> None:
    fake(tmp_path, BROKEN)
    plain = run(tmp_path, "import torchvision")
    assert "operator torchvision::nms does not exist" in plain.stderr  # the fault is there without the guard
    done = run(tmp_path, STATES)
    assert done.stdout.split() == ["repaired", "matching", "True"], done.stderr


def test_broken_is_repaired_after_someone_else_stumbled(tmp_path: Path) -> None:
    """Half-loaded sub-modules stay behind in sys.modules; the guard must not build on them."""
    fake(tmp_path, BROKEN)
    stumble = "import sys\ntry:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
    stumble += "old = sys.modules['torchvision.extension']\n"
    done = run(tmp_path, f"{stumble}{STATES}\nprint(sys.modules['torchvision.extension'] is old)")
    assert done.stdout.split() == ["repaired", "matching", "True", "False"], done.stderr


def test_matching_is_left_alone(tmp_path: Path) -> None:
    fake(tmp_path, MATCHING)
    call = "\nimport torch\nprint(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).item())"
    call += "\nprint(hasattr(torch.ops.torchvision, 'qnms'))"
    done = run(tmp_path, STATES + call)
    assert done.stdout.split() == ["matching", "matching", "True", "41", "False"], done.stderr


def test_absent_is_no_error(tmp_path: Path) -> None:
    hide = """
import importlib.abc
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
sys.meta_path.insert(0, Hide())
"""
    done = run(tmp_path, hide + STATES)
    assert done.stdout.split() == ["absent", "absent", "False"], done.stderr


@pytest.mark.parametrize(
    ("init", "message"),
    [
        ("raise RuntimeError('another fault')", "RuntimeError: another fault"),
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'"),
    ],
)
def test_another_fault_is_not_hidden(tmp_path: Path, init: str, message: str) -> None:
    fake(tmp_path, init)
    done = run(tmp_path, STATES + "\n")
    assert done.returncode == 1
    assert message in done.stderr


def test_this_installation_imports_torchvision_and_timm() -> None:
    import timm
    import torchvision

    assert timm.is_model("resnet18")

    assert torchvision.ops.nms is not None
