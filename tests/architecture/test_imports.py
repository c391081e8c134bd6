"""Rooms import downward only, heavy libraries stay where they belong, and nothing is unpickled."""

from __future__ import annotations

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "dermalyze"

TABLE = re.findall(
    r"^\| `([\w.]+)/?` \| [^|]+ \| ([^|]+) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.M
)


def room_name(cell: str) -> str:
    """`data/` and `errors.py` of the table as the checks below name them; "" is the package's own `__init__`."""
    return cell.removesuffix(".py").replace("__init__", "")


def allowed() -> dict[str, set[str]]:
    """Room to the rooms that it may import, itself among them, but for stages: no step imports another."""
    rooms: dict[str, set[str]] = {}
    for name, cell in TABLE:
        named = {room_name(word) for word in re.findall(r"`([\w.]+)`", cell)}
        above = set(rooms) if "every room above" in cell else set()
        rooms[room_name(name)] = (above - named if " but " in cell else above | named) | {room_name(name)} - {"stages"}
    return rooms


MAY_IMPORT = allowed()

ONLY_IN = {
    "timm": {"models/backbones.py"},
    "transformers": {"models/backbones_cvt.py"},
    "open_clip": {"models/clip.py"},
    "torchxrayvision": {"models/backbones.py"},
    "torch.distributed": {"core/runtime.py"},
}

MAY_UNPICKLE = {"models/unpickle.py"}
"""The program that `import-weights` starts; nothing imports it but for the names of its files."""

UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

LIGHT = (
    *(f"{room_name(name)}/**/*.py" for name, _ in TABLE if room_name(name) in MAY_IMPORT["serve"]),
    "errors.py",
    "rng.py",
    "cli/**/*.py",
    "__init__.py",
)
"""What the install without PyTorch loads: the server and every room below it."""
NEEDS_TRAIN = {"core/runtime.py"}
"""In those rooms, but for training alone."""
HEAVY = ("torch", "torchvision", "timm", "pandas")


def room_of(path: Path) -> str:
    """The room of a file, relative to the package: a folder, a module, or "" for `__init__`."""
    return path.parts[0] if len(path.parts) > 1 else path.stem.replace("__init__", "")


def imports(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in a file, wherever it stands; `from a import b` gives `a.b`."""
    package = ["dermalyze", *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def breaches(root: Path) -> list[str]:
    """Every import that the design forbids."""
    found = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        room = room_of(relative)
        assert room in MAY_IMPORT, f"{relative}: '{room}' is no room of the design"
        for line, name in imports(path, root):
            where = f"{relative}:{line} imports {name}"
            for library, homes in ONLY_IN.items():
                if (name == library or name.startswith(library + ".")) and relative.as_posix() not in homes:
                    found.append(f"{where}; only {', '.join(homes)} may")
            if name.partition(".")[0] in UNPICKLERS:
                found.append(f"{where}; nothing is unpickled")
            if name.partition(".")[0] == "dermalyze":
                steps = name.split(".")
                target = steps[1] if len(steps) > 1 else ""
                target = target if (root / target).is_dir() or (root / f"{target}.py").is_file() else ""
                if target not in MAY_IMPORT[room]:
                    found.append(f"{where}; {room or '__init__'} may not import {target or 'the package itself'}")
    return found


def unpickling_calls(root: Path) -> list[str]:
    """`torch.load`, `allow_pickle=True`, `weights_only=False`, and YAML loaders that are not safe."""
    found = []
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).as_posix() in MAY_UNPICKLE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            bad = [
                k.arg
                for k in node.keywords
                if (k.arg, ast.unparse(k.value)) in {("allow_pickle", "True"), ("weights_only", "False")}
            ]
            loose_yaml = name in ("yaml.load", "yaml.load_all") and not any(
                ast.unparse(k.value) == "_Loader" for k in node.keywords
            )
            if bad or loose_yaml or name in ("torch.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"):
                found.append(f"{path.relative_to(root)}:{node.lineno}: {name}")
    return found


def run_paths(root: Path) -> list[str]:
    """Places outside core/run_paths.py and core/run.py that put a file name to a run's root themselves."""
    found = []
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).as_posix() in ("core/run.py", "core/run_paths.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and ast.unparse(node.left) == "run.root":
                found.append(f"{path.relative_to(root)}:{node.lineno}: {ast.unparse(node)}")
    return found


def test_rooms_import_downward_only() -> None:
    assert breaches(SOURCE) == []


def circles(root: Path) -> list[list[str]]:
    """Modules that import each other in a ring, wherever the imports stand."""
    modules = {".".join(["dermalyze", *path.relative_to(root).with_suffix("").parts]): path for path in root.rglob("*.py")}
    graph = {
        module: {
            target
            for _, name in imports(path, root)
            for target in (name, name.rpartition(".")[0])
            if target in modules and target != module
        }
        for module, path in modules.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [error.args[1]]
    return []


def test_no_modules_import_each_other() -> None:
    assert circles(SOURCE) == []


def test_a_ring_of_imports_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from dermalyze.b import x")
    (tmp_path / "b.py").write_text("def f():\n    from dermalyze import a")
    (ring,) = circles(tmp_path)
    assert set(ring) == {"dermalyze.a", "dermalyze.b"}


def test_nothing_is_unpickled() -> None:
    assert unpickling_calls(SOURCE) == []


def test_only_the_run_knows_its_file_names() -> None:
    assert run_paths(SOURCE) == []


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in SOURCE.rglob("*.py")} - {SOURCE}), ids=lambda path: path.name
)
def test_every_room_says_what_it_is_in_ten_lines(folder: Path) -> None:
    words = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert words is not None
    assert 4 <= len(words.splitlines()) <= 10


def empty_rooms(root: Path) -> None:
    for name, _ in TABLE:
        if name.endswith(".py"):
            (root / name).write_text("")
        else:
            (root / name).mkdir()


def test_the_table_names_every_room() -> None:
    there = {path.name for path in SOURCE.iterdir() if path.suffix == ".py" or (path.is_dir() and list(path.rglob("*.py")))}
    assert {name for name, _ in TABLE} == there


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("config/a.py", "from dermalyze.core.run import Run"),
        ("core/a.py", "from dermalyze.metrics import classification"),
        ("rng.py", "from dermalyze.errors import DataError"),
        ("serve/a.py", "from dermalyze.data import manifest"),
        ("workflows/a.py", "from dermalyze.serve import predictor"),
        ("metrics/a.py", "import dermalyze.imaging.decode"),
        ("data/a.py", "from dermalyze.models import heads"),
        ("models/a.py", "def f():\n    from dermalyze.data.labels import parse"),
        ("stages/a.py", "from dermalyze.stages.split import split"),
        ("stages/a.py", "from . import split"),
        ("stages/a.py", "from ..workflows import pipeline"),
        ("serve/a.py", "from dermalyze.workflows import pipeline"),
        ("report/a.py", "from dermalyze import train"),
        ("data/a.py", "from dermalyze import cli"),
        ("models/heads.py", "import timm"),
        ("models/heads.py", "from torch import distributed"),
        ("core/runtime.py", "from timm.layers import x"),
        ("stages/a.py", "import pickle"),
    ],
)
def test_the_check_finds_what_it_is_for(file: str, line: str, tmp_path: Path) -> None:
    empty_rooms(tmp_path)
    (tmp_path / file).write_text(line)
    assert len(breaches(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("config/a.py", "from dermalyze.errors import ConfigError"),
        ("models/backbones.py", "import timm"),
        ("core/runtime.py", "import torch.distributed as dist"),
        ("data/a.py", "from .images import decode"),
        ("workflows/a.py", "from dermalyze.stages.split import split"),
        ("cli/a.py", "from dermalyze import train"),
    ],
)
def test_the_check_allows_what_the_design_allows(file: str, line: str, tmp_path: Path) -> None:
    empty_rooms(tmp_path)
    (tmp_path / file).write_text(line)
    assert breaches(tmp_path) == []


@pytest.mark.parametrize(
    "line", ["torch.load(p)", "np.load(p, allow_pickle=True)", "f(p, weights_only=False)", "yaml.load(t, Loader=yaml.Loader)"]
)
def test_the_check_finds_unpickling(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(line)
    assert len(unpickling_calls(tmp_path)) == 1
    (tmp_path / "a.py").write_text("np.load(p, allow_pickle=False)\nyaml.load(t, Loader=_Loader)")
    assert unpickling_calls(tmp_path) == []


def test_the_check_finds_file_names(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = run.root / 'manifest.parquet'")
    assert len(run_paths(tmp_path)) == 1


def loaded_by(modules: list[str]) -> dict[str, list[str]]:
    """Import each module in turn in one fresh interpreter; the heavy libraries that each newly brought in."""
    code = (
        "import importlib, json, sys\n"
        "heavy, seen, out = set(sys.argv[1].split(',')), set(), {}\n"
        "for name in sys.argv[2:]:\n"
        "    importlib.import_module(name)\n"
        "    now = heavy & set(sys.modules)\n"
        "    out[name], seen = sorted(now - seen), now\n"
        "print(json.dumps(out))\n"
    )
    words = [sys.executable, "-c", code, ",".join(HEAVY), *modules]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def module_name(path: Path) -> str:
    return ".".join(["dermalyze", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(".__init__")


def test_light_modules_load_no_heavy_library() -> None:
    modules = sorted(
        {module_name(path) for pattern in LIGHT for path in SOURCE.glob(pattern)}
        - {module_name(SOURCE / name) for name in NEEDS_TRAIN}
    )
    assert len(modules) > 100
    assert {name: heavy for name, heavy in loaded_by(modules).items() if heavy} == {}


def test_the_subprocess_check_sees_a_heavy_library() -> None:
    assert loaded_by(["dermalyze.errors", "dermalyze.data.splitting"]) == {
        "dermalyze.errors": [],
        "dermalyze.data.splitting": ["pandas"],
    }


def test_no_component_receives_the_whole_experiment() -> None:
    """Only the run's folder, stages, workflows and commands know it; all else takes the specs that it uses."""
    knows = {"config", "stages", "workflows", "cli"}
    files = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if "ExperimentSpec" in path.read_text(encoding="utf-8") and path.relative_to(SOURCE).parts[0] not in knows
    }
    assert files == {"__init__.py", "core/run.py"}
