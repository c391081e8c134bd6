"""The how-to pages that add a component: their differences fit the sources, and what they add works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "how-to").glob("add-*.md"))


def test_there_are_pages() -> None:
    assert len(PAGES) >= 3


def apply(difference: str, root: Path) -> Path:
    """Apply one block of hunks; the lines that each takes away or keeps must are in the file exactly once."""
    head, *hunks = re.split(r"^@@\n", difference, flags=re.M)
    path = root / head.removeprefix("--- ").strip()
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        lines = hunk.splitlines()
        before = "\n".join(line[1:] for line in lines if not line.startswith("+")) + "\n"
        after = "\n".join(line[1:] for line in lines if not line.startswith("-")) + "\n"
        assert text.count(before) == 1, f"{path.name} does not hold once:\n{before}"
        text = text.replace(before, after)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_applied_and_run(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    changed = {apply(block, tmp_path) for block in re.findall(r"^```diff\n(.*?)^```", text, flags=re.M | re.S)}
    assert 1 <= len(changed) <= 2
    (script,) = re.findall(r"^```python then\n(.*?)^```", text, flags=re.M | re.S)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    check = f"import dermalyze; assert dermalyze.__file__.startswith({str(tmp_path)!r})\n{script}"
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
