"""Run two commits on one machine and compare what they compute, number by number.

    python tests/support/goldens.py 1a2b3c4                 # that commit and the working tree
    python tests/support/goldens.py 1a2b3c4 5d6e7f8 --only demo labels
    python tests/support/goldens.py --write                 # compute tests/pipeline/goldens.json again

Four small workloads run through the command line: the demo, images with several labels, two images per case, and the packaged
model. Weights have to be equal bit for bit, numbers to the tolerance; exit status 0: they are, 1: they are not, 2: a commit
could not be run. A commit is checked out in a temporary worktree; of the working tree the files are used as they are.

What later commits name differently on purpose is in three tables: `CHANGES` (settings and words of the command line),
`FILES` (of a run) and `RENAMED` (names of the numbers).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import inspect
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

sys.path.append(str(Path(__file__).parent))
import kept
from kept import ROOT, TOLERANCE, flatten, one


@dataclass(frozen=True)
class Change:
    """What trees from some commit on name differently.

    Attributes:
        since: a glob that matches a file in these trees, and in none before.
        keys: dotted name of a setting, old to new.
        values: by the new dotted name, the value that a setting has there, where a workload sets it.
        words: of the command line, old to new.
    """

    since: str
    keys: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)


CHANGES: tuple[Change, ...] = (
    Change(
        "src/dermalyze/imaging/samples.py",
        keys={"model.second": "model.image_2", "data.source.columns.second_path": "data.source.columns.image_2_path"},
    ),
)
"""In the order in which they came."""

FILES = {
    "demo": ("experiments/demo.yaml", "experiments/**/demo.yaml"),
    "weights": ("checkpoints/best.safetensors",),
    "history": ("metrics.jsonl",),
    "evaluation": ("report/evaluation_metrics.json",),
}
"""Where they may stand, in the tree or in the folder of a run; the first pattern that matches counts."""

QUESTIONS = "evaluation.operating.questions"
RENAMED: dict[str, str] = {
    "evaluation.per_label": "evaluation.per_class",
    "evaluation.for_whom": "evaluation.subgroups",
    "evaluation.failures": "evaluation.largest_errors",
    "evaluation.failures.mel": "evaluation.largest_errors.missed.mel",
    "evaluation.operating.questions.melanoma": "evaluation.operating.questions.mel",
    **{
        f"{QUESTIONS}.{old}.points.sensitivity": f"{QUESTIONS}.{new}.points.sensitivity_95"
        for old, new in (("malignant", "malignant"), ("melanoma", "mel"), ("mel", "mel"))
    },
    **{
        f"evaluation.corruptions.{where}.melanoma_sensitivity": f"evaluation.corruptions.{where}.sensitivity_mel"
        for where in ("clean", "mean")
    },
}
"""Beginnings of the names of numbers and tensors, old to new, up to a dot: {"evaluation.a": "evaluation.b"}.

The names begin with "history", "evaluation", "reference" or "own"; those of tensors with "weights". An empty new name: gone on
purpose.
"""

ADDED: tuple[str, ...] = ("evaluation",)
"""Beginnings of names that the newer of two trees may have beside those of the older: a report gained sections."""

TIMES = ("seconds", "images_per_s")
NEAR = 1e-4
"""For the losses of the first epoch, where weights may differ."""


def paint_labels(root: Path) -> None:
    """96 images of 24 x 24 px with a red bar, a green disc and a blue frame, each there or not, two per patient."""
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:24, :24]
    rows = []
    for n, (bar, disc, frame) in enumerate(rng.random((96, 3)) < (0.5, 0.3, 0.2)):
        pixels = rng.integers(90, 140, (24, 24, 3))
        row, column = rng.integers(8, 16, 2)
        pixels[row - 2 : row + 2, :, 0] += 110 * bar
        pixels[(x - column) ** 2 + (y - row) ** 2 < 25, 1] += 110 * disc
        pixels[(x < 3) | (x > 20) | (y < 3) | (y > 20), 2] += 110 * frame
        save(root / f"p{n:03}.png", pixels)
        there = {"bar": int(bar), "disc": int(disc), "frame": int(frame)}
        rows.append({"image_id": f"p{n:03}", "patient_id": f"P{n // 2:03}", "age": 30 + n % 50, **there})
    write_table(root / "set.csv", rows)


def paint_pairs(root: Path) -> None:
    """120 cases: the first image is noise; the second is dark (mel) or bright (nv), and every 17th case has none."""
    rng, rows = np.random.default_rng(0), []
    for n in range(120):
        label = ("mel", "nv")[n % 2]
        save(root / f"{n}.png", rng.integers(0, 256, (20, 24, 3)))
        save(root / f"{n}b.png", {"mel": 70, "nv": 190}[label] + rng.integers(-40, 41, (26, 20, 3)))
        row = {"image_id": f"i{n:03}", "path": f"{n}.png", "label": label, "lesion_id": f"l{n}", "age": 30 + n % 40}
        rows.append({**row, "clinical": f"{n}b.png" if n % 17 else ""})
    write_table(root / "set.csv", rows)


def save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@dataclass(frozen=True)
class Workload:
    """A run from data to report.

    Attributes:
        data: the words of the command that makes the data set, or a function that writes it into a folder.
        settings: of the experiment, as they were named before all `CHANGES`.
        base: the experiment of the tree that the settings continue top of, in `FILES`; empty: none.
    """

    data: tuple[str, ...] | Callable[[Path], None]
    settings: Mapping[str, Any]
    base: str = ""


SAME: dict[str, Any] = {"threads": 1, "device": "cpu", "mode": "deterministic"}
WORKLOADS: dict[str, Workload] = {
    "demo": Workload(
        ("synth", "data", "--lesions", "300", "--seed", "7", "--size", "64", "--balance", "even"),
        {"data": {"path": "data", "workers": 0}, "train": {"epochs": 6, **SAME}, "evaluate": {"resamples": 200}},
        base="demo",
    ),
    "labels": Workload(
        paint_labels,
        {
            "name": "labels",
            "seed": 42,
            "task": {"kind": "multilabel"},
            "data": {
                "source": {"kind": "csv", "labels": ["bar", "disc", "frame"], "extension": ".png"}, "path": "data",
                "workers": 0,
            },
            "preprocess": {"size": [24, 24]},
            "split": {"fractions": {"train": 0.5, "val": 0.15, "cal": 0.15, "test": 0.2}},
            "model": {"backbone": "tiny_cnn", "kwargs": {"channels": [8, 16]}, "head": {"kind": "linear"}},
            "train": {"epochs": 3, "batch_size": 16, "augment": {"policy": "none"}, "optimizer": {"lr": 0.02}, **SAME},
            "inference": {"recipe": "plain"},
            "evaluate": {"resamples": 200},
        },
    ),
    "pairs": Workload(
        paint_pairs,
        {
            "name": "pairs",
            "seed": 42,
            "data": {
                "source": {"kind": "csv", "file": "set.csv", "columns": {"second_path": "clinical"}}, "path": "data",
                "workers": 0,
            },
            "preprocess": {"size": [16, 16]},
            "model": {
                "backbone": "tiny_cnn", "kwargs": {"channels": [4, 8]}, "head": {"kind": "linear"},
                "second": {"kind": "separate", "hide": 0.1},
            },
            "train": {
                "epochs": 4, "batch_size": 16, "optimizer": {"lr": 0.01}, "augment": {"policy": "conservative"},
                "early_stopping": None, **SAME,
            },
            "inference": {"recipe": "flips"},
            "evaluate": {"resamples": 200},
        },
    ),
}  # fmt: skip
PACKAGED = "packaged"
NAMES = (*WORKLOADS, PACKAGED)

HOME = "import sys, dermalyze; assert dermalyze.__file__.startswith(sys.argv[1]), f'not of this tree: {dermalyze.__file__}'; "
COMMAND = HOME + "from dermalyze.cli import main; main(sys.argv[2:])"
ANSWERS = HOME + (
    "import json, pathlib; sys.path.append(sys.argv[2]); from kept import packaged_answers; "
    "print(json.dumps(packaged_answers(pathlib.Path(sys.argv[1]))))"
)


class FailedError(Exception):
    """A commit could not be run."""


def set_dotted(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    values[last] = value


def take_dotted(values: dict[str, Any], name: str) -> list[Any]:
    """Take a setting out; [value], or [] where it is not set."""
    *sections, last = name.split(".")
    for section in sections:
        if not isinstance(values := values.get(section, {}), dict):
            return []
    return [values.pop(last)] if last in values else []


def translated(settings: Mapping[str, Any], tree: Path, changes: Sequence[Change]) -> dict[str, Any]:
    """Settings as this tree names them."""
    values: dict[str, Any] = json.loads(json.dumps(settings))
    for change in changes:
        if not any(tree.glob(change.since)):
            continue
        for old, new in change.keys.items():
            for value in take_dotted(values, old):
                set_dotted(values, new, value)
        for name, value in change.values.items():
            if take_dotted(values, name):
                set_dotted(values, name, value)
    return values


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(base)
    for key, value in top.items():
        inner = values.get(key)
        values[key] = merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return values


def python(tree: Path, folder: Path, program: str, words: Sequence[str]) -> str:
    """Run a program with the package of a tree, in a folder; what it printed."""
    own = {"PYTHONPATH": str(tree / "src"), "DERMALYZE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    own |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program, str(tree), *words]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True)
    if done.returncode:
        raise FailedError(f"{' '.join(words)}: exit status {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def command_line(tree: Path, folder: Path, words: Sequence[str]) -> None:
    for change in CHANGES:
        if any(tree.glob(change.since)):
            words = [change.words.get(word, word) for word in words]
    python(tree, folder, COMMAND, words)


def tensors(path: Path) -> dict[str, str]:
    """SHA-256 of each tensor's name, type, shape and bytes, by its name; the rest of the file's header does not count."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, about in json.loads(data[8:start]).items():
        if name != "__metadata__":
            head = json.dumps([name, about["dtype"], about["shape"]]).encode()
            begin, end = about["data_offsets"]
            found[f"weights.{name}"] = hashlib.sha256(head + data[start + begin : start + end]).hexdigest()
    return found


def collect(name: str, tree: Path) -> dict[str, Any]:
    """Run one workload with the package of a tree: {"weights": hash by tensor, "values": number by name}."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        if name == PACKAGED:
            answers = json.loads(python(tree, folder, ANSWERS, [str(Path(__file__).resolve().parent)]))
            return {"weights": {}, "values": dict(flatten(answers))}
        workload = WORKLOADS[name]
        if callable(workload.data):
            (folder / "data").mkdir()
            workload.data(folder / "data")
        else:
            command_line(tree, folder, workload.data)
        base = yaml.safe_load(one(tree, FILES[workload.base]).read_text()) if workload.base else {}
        settings = merged(base, translated(workload.settings, tree, CHANGES))
        (folder / "experiment.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        command_line(tree, folder, ["run", "experiment.yaml", "run"])
        return read_run(folder / "run")


def read_run(run: Path) -> dict[str, Any]:
    """The weights and the numbers of a finished run."""
    lines = [json.loads(line) for line in one(run, FILES["history"]).read_text().splitlines()]
    history = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    evaluation = json.loads(one(run, FILES["evaluation"]).read_text())
    values = dict(flatten({"history": history, "evaluation": evaluation}))
    return {"weights": tensors(one(run, FILES["weights"])), "values": values}


def recipe(name: str) -> str:
    """Changes when what is asked of a commit does; a new pattern in `FILES` asks nothing else."""
    sources = (collect, read_run, tensors, flatten) if name in WORKLOADS else (kept.packaged_answers, kept.own_images, flatten)
    parts: list[Any] = [name, TIMES, [inspect.getsource(function) for function in sources]]
    if name in WORKLOADS:
        workload = WORKLOADS[name]
        parts += [workload.settings, workload.base, inspect.getsource(save)]
        parts.append(inspect.getsource(workload.data) if callable(workload.data) else workload.data)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    if done.returncode:
        raise FailedError(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The tree of a commit, for a while."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "tree"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def collect_all(revision: str | None, names: Sequence[str], cache: Path | None) -> dict[str, Any]:
    """By workload what `collect` gives, of a commit or of the working tree."""
    commit = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") if revision else None
    stored = {name: cache / f"{commit}-{name}-{recipe(name)}.json" for name in names} if cache and commit else {}
    found = {name: json.loads(path.read_text()) for name, path in stored.items() if path.exists()}
    if todo := [name for name in names if name not in found]:
        if commit is None:
            found |= timed("working tree", ROOT, todo)
        else:
            with checked_out(commit) as tree:
                found |= timed(commit[:7], tree, todo)
    for name, path in stored.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found[name]))
    return found


def timed(title: str, tree: Path, names: Sequence[str]) -> dict[str, Any]:
    found = {}
    for name in names:
        started = time.monotonic()
        try:
            found[name] = collect(name, tree)
        except (FailedError, LookupError) as error:
            raise FailedError(f"{title}, {name}: {error}") from error
        print(f"ran {name} of {title}: {time.monotonic() - started:.0f} s", flush=True)
    return found


def renamed(names: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """Under their new names; the longest beginning decides.

    >>> renamed({"a.b.c": 1, "a.bc": 2, "d": 3}, {"a.b": "x", "d": ""})
    {'x.c': 1, 'a.bc': 2}
    """
    found = {}
    for name, value in names.items():
        begins = [old for old in changes if name == old or name.startswith(f"{old}.")]
        if not begins:
            found[name] = value
        elif new := changes[old := max(begins, key=len)]:
            found[new + name[len(old) :]] = value
    return found


@dataclass(frozen=True)
class Comparison:
    """Two results of one workload.

    Attributes:
        tensors: how many there are.
        weights: names of those that differ or are missing on one side.
        first: largest difference of a loss of the first epoch.
        values: how many numbers were compared.
        far: (name, base, other) of those further apart than allowed, the largest difference first.
        worst: (difference, name) of the largest difference; None where nothing was compared.
        missing: names of numbers and tensors in the base alone; in the other alone.
    """

    tensors: int
    weights: list[str]
    first: float
    values: int
    far: list[tuple[str, float, float]]
    worst: tuple[float, str] | None
    missing: tuple[list[str], list[str]]

    def same(self, loose: bool) -> bool:
        """Whether nothing differs; `loose`: weights, and what comes of them after the first epoch, may."""
        if not loose:
            return not (self.weights or self.far or any(self.missing))
        names = [name for name, *_ in self.far] + [name for side in self.missing for name in side]
        return not any(first_loss(name) or name.split(".")[0] not in ("history", "evaluation") for name in names)


def first_loss(name: str) -> bool:
    """Whether this is a loss of the first epoch."""
    return name.startswith("history.0.") and name.endswith("_loss")


def compare(
    base: Mapping[str, Any],
    other: Mapping[str, Any],
    tolerance: float = TOLERANCE,
    *,
    loose: bool = False,
    changes: Mapping[str, str] = RENAMED,
) -> Comparison:
    """Compare what `collect` gave of two trees."""
    (weights, values), (weights_2, values_2) = (
        [renamed(one[key], changes) for key in ("weights", "values")] for one in (base, other)
    )
    names, names_2 = {**weights, **values}, {**weights_2, **values_2}
    both = [name for name in values if name in values_2]
    apart = {name: distance(values[name], values_2[name]) for name in both}
    allowed = {name: NEAR if loose and first_loss(name) else tolerance for name in both}
    far = sorted((name for name in both if not apart[name] <= allowed[name]), key=lambda name: -apart[name])
    largest = max(both, key=apart.__getitem__, default=None)
    all_weights = sorted({**weights, **weights_2})
    new = [name for name in names_2 if name not in names and not name.startswith(ADDED)]
    return Comparison(
        len(all_weights),
        [name for name in all_weights if weights.get(name) != weights_2.get(name)],
        max((apart[name] for name in both if first_loss(name)), default=0.0),
        len(both),
        [(name, values[name], values_2[name]) for name in far],
        None if largest is None else (apart[largest], largest),
        ([name for name in names if name not in names_2], new),
    )


def distance(a: float, b: float) -> float:
    """Absolute difference; none between two that are both NaN or the same infinity.

    >>> distance(math.nan, math.nan), distance(math.inf, math.inf), distance(1.0, math.nan)
    (0.0, 0.0, inf)
    """
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    apart = abs(a - b)
    return math.inf if math.isnan(apart) else apart


def digest(weights: Mapping[str, str]) -> str:
    """One SHA-256 of all tensors, in the order of their names."""
    return hashlib.sha256("".join(f"{name} {weights[name]}\n" for name in sorted(weights)).encode()).hexdigest()


def lines(name: str, found: Comparison, base: Mapping[str, Any], other: Mapping[str, Any], loose: bool) -> list[str]:
    """What is told of one workload."""
    parts = []
    if found.weights:
        parts.append(
            f"WEIGHTS DIFFER in {len(found.weights)} of {found.tensors} tensors, first {found.weights[0]} "
            f"({digest(base['weights'])[:12]}, {digest(other['weights'])[:12]})"
        )
    elif found.tensors:
        parts.append(f"weights equal ({found.tensors} tensors, SHA-256 {digest(other['weights'])[:12]})")
    parts.append(f"{found.values} values")
    if found.worst is not None:
        parts.append(f"largest difference {found.worst[0]:.3g}" + (f" ({found.worst[1]})" if found.worst[0] else ""))
    if loose and found.weights:
        parts.append(f"losses of the first epoch by at most {found.first:.3g}")
    word = "same" if found.same(False) else "allowed" if found.same(loose) else "DIFFERS"
    told = [f"{word:7}  {name}: {', '.join(parts)}"]
    told += shown([f"{name}: {a!r}, {b!r}" for name, a, b in found.far], "further apart than allowed")
    told += shown(found.missing[0], "in the first alone")
    return told + shown(found.missing[1], "in the second alone")


def shown(names: Sequence[str], what: str) -> list[str]:
    most = 5
    rest = [f"    and {len(names) - most} more"] if len(names) > most else []
    return [f"  {len(names)} {what}", *(f"    {name}" for name in names[:most]), *rest] if names else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", nargs="?", help="a git revision")
    parser.add_argument("other", nargs="?", help="another; the working tree where it is not given")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="largest difference of a number (%(default)g)")
    parser.add_argument(
        "--weights-may-differ", action="store_true",
        help=f"weights, and what comes of them, may differ; the losses of the first epoch by {NEAR:g}",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep what commits gave, for the same machine alone")
    parser.add_argument("--write", action="store_true", help=f"compute {kept.STORE.name} again, with the working tree")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exception, so that no worktree is left behind
    if options.write:
        sys.path.insert(0, str(ROOT / "src"))
        kept.write()
        return 0
    if options.base is None:
        parser.error("name a git revision, or give --write")
    try:
        base = collect_all(options.base, options.only, options.cache)
        other = collect_all(options.other, options.only, options.cache)
    except FailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    loose, same = options.weights_may_differ, True
    for name in options.only:
        found = compare(base[name], other[name], options.tolerance, loose=loose)
        same = same and found.same(loose)
        print("\n".join(lines(name, found, base[name], other[name], loose)))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
