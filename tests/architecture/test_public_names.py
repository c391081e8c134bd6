"""`import dermalyze` gives the functions of the command line, sorted, lazily, and nothing else."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dermalyze

HEAVY = {
    "PIL", "asyncio", "matplotlib", "numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "pydantic", "rich", "sklearn", "timm",
    "torch", "torchvision", "yaml",
}  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_names_are_sorted_and_unique() -> None:
    assert dermalyze.__all__ == sorted(set(dermalyze.__all__))
    assert dir(dermalyze) == dermalyze.__all__


def test_every_lazy_name_is_public_and_every_public_name_is_lazy() -> None:
    assert {*dermalyze._SOURCES, "__version__"} == set(dermalyze.__all__)


def test_type_checkers_see_the_same_names_from_the_same_places() -> None:
    tree = ast.parse(Path(dermalyze.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    seen = {
        alias.asname or alias.name: f"{node.module.removeprefix('dermalyze.')}:{alias.name}"
        for node in imports
        if node.module is not None
        for alias in node.names
    }
    assert seen == dermalyze._SOURCES
    assigned = next(node.value for node in tree.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assigned) == dermalyze.__all__


@pytest.mark.parametrize("name", dermalyze.__all__)
def test_name_is_there_and_documented(name: str) -> None:
    value = getattr(dermalyze, name)
    assert value is not None
    if name != "__version__":
        assert value.__doc__, f"dermalyze.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        _ = dermalyze.tran


def test_import_loads_nothing_heavy() -> None:
    assert not loaded_by("import dermalyze") & (HEAVY | {"typer"})


def test_help_loads_nothing_heavy() -> None:
    code = "import dermalyze.cli\ntry: dermalyze.cli.main(['--help'])\nexcept SystemExit as end: assert end.code == 0"
    assert not loaded_by(code) & HEAVY


def test_a_room_never_hides_the_function_of_its_name() -> None:
    rooms = {path.name for path in Path(dermalyze.__file__).parent.iterdir() if path.is_dir()}
    shared = rooms & set(dermalyze.__all__)
    assert shared == {"audit", "explain", "models"}
    for name in shared:
        code = f"import importlib, dermalyze; importlib.import_module('dermalyze.{name}'); print(callable(dermalyze.{name}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"


def test_a_public_function_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("audit", "train"):
        monkeypatch.setattr(dermalyze, name, len)
        assert getattr(dermalyze, name) is len
