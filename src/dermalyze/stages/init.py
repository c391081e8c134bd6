"""Create a run: freeze the configuration and record the environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from dermalyze.config.data import CsvSource, MergedSource
from dermalyze.config.experiment import ExperimentSpec, build_experiment, load_experiment
from dermalyze.core.atomic import write_json
from dermalyze.core.run import Run
from dermalyze.errors import ConfigError, UsageError

RECORDED = (
    "numpy", "onnxruntime", "pillow", "pydantic", "torch", "torchvision", "timm", "pandas", "pyarrow", "onnx", "scikit-learn",
)  # fmt: skip


@dataclass(frozen=True)
class InitResult:
    """A run that is ready for `prepare`.

    Attributes:
        root: the run folder.
        notes: how each key of an older configuration was taken.
    """

    root: Path
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"run": str(self.root), "notes": list(self.notes)}

    def lines(self) -> list[str]:
        """Lines for a person."""
        return [*self.notes, f"{self.root}: configuration frozen in config.yaml; next: dermalyze prepare {self.root}"]


def init(root: Path | str, *, config: Path | None = None, legacy: Path | None = None, sets: Sequence[str] = ()) -> InitResult:
    """Make a run folder with a frozen configuration.

    Args:
        root: the folder to make; the same configuration again is no change.
        config: an experiment's YAML file; without it every default.
        legacy: a `config.yaml` of the Dermalyze document instead.
        sets: `key=value` assignments on top, as with `--set`.

    Raises:
        UsageError: both `config` and `legacy`.
        ConfigError: the configuration is wrong, or the run is frozen on another.
    """
    if config is not None and legacy is not None:
        raise UsageError("--config and --from are both set; keep one")
    notes: tuple[str, ...] = ()
    if legacy is not None:
        from dermalyze.config.legacy import read_legacy

        values, notes = read_legacy(legacy)
        spec = build_experiment(values, legacy.name, sets)
    else:
        spec = load_experiment(config, sets) if config is not None else build_experiment({}, "--set", sets)
    return InitResult(freeze(Path(root), spec).root, notes)


def freeze(root: Path, spec: ExperimentSpec) -> Run:
    """Create the run with absolute paths, so that it works from any folder; an existing run must be configured alike.

    Raises:
        ConfigError: a path that is not there, or a run frozen on another configuration.
    """
    if spec.data.path is not None and "" in (spec.data.path, *spec.data.path):
        raise ConfigError("data.path: got an empty text; write null, or name the folder with --set data.path=FOLDER")
    spec = with_absolute_paths(spec)
    fresh = not Run(root).config_path.exists()
    if fresh:
        _require_paths(spec)
    run = Run.create(root, spec)
    if not run.environment_path.exists():  # also after a stop between the two files
        write_json(run.environment_path, environment(spec))
    return run


def with_absolute_paths(spec: ExperimentSpec) -> ExperimentSpec:
    """The experiment with `data.path` and `model.weights` absolute, taken from the working folder.

    >>> spec = ExperimentSpec.model_validate({"data": {"path": "a"}})
    >>> with_absolute_paths(spec).data.path == str(Path.cwd() / "a")
    True
    """

    def found(path: str | list[str] | None) -> str | list[str] | None:
        return None if path is None else absolute(path) if isinstance(path, str) else [absolute(p) for p in path]

    data = spec.data.model_copy(update={"path": found(spec.data.path)})
    if isinstance(data.source, MergedSource):
        parts = tuple(part.model_copy(update={"path": found(part.path)}) for part in data.source.sources)
        data = data.model_copy(update={"source": data.source.model_copy(update={"sources": parts})})
    weights = None if spec.model.weights is None else absolute(spec.model.weights)
    return spec.model_copy(
        update={
            "data": data,
            "model": spec.model.model_copy(update={"weights": weights}),
        }
    )


def absolute(path: str | Path) -> str:
    """A path from the root of the file system, links as they are.

    >>> absolute("a") == str(Path.cwd() / "a")
    True
    """
    return str(Path(path).absolute())


def _require_paths(spec: ExperimentSpec) -> None:
    """Refuse a path that is not there before it is frozen for good."""
    paths = [("data.path", spec.data.path)]
    if isinstance(spec.data.source, MergedSource):
        paths += [(f"data.source.sources ({part.title}).path", part.path) for part in spec.data.source.sources]
    named = [(key, p) for key, path in paths for p in ([] if path is None else [path] if isinstance(path, str) else path)]
    named += [("model.weights", spec.model.weights)] if spec.model.weights is not None else []
    for key, value in named:
        if not Path(value).exists():
            remedy = f"--set {key}=PATH" if "(" not in key else "correct it in the configuration"
            raise ConfigError(f"{key}: {value} does not exist; relative paths start from the working folder; {remedy}")
    source, folder = spec.data.source, spec.data.path
    if isinstance(source, CsvSource) and source.file is not None and isinstance(folder, str) and Path(folder).is_dir():
        name = PurePath(source.file).name  # anywhere below, or in an archive, as prepare finds it
        archives = any(path.suffix.lower() == ".zip" for path in Path(folder).iterdir())
        if not archives and not any(name in files for _, _, files in os.walk(folder)):
            raise ConfigError(f"data.source.file: {source.file} is not in {folder}; correct the name, or leave it out")


def environment(spec: ExperimentSpec) -> dict[str, Any]:
    """Versions, commit, seed, command and hardware; no path of the user and no name of the machine."""
    return {
        "versions": {"dermalyze": metadata.version("dermalyze"), "python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "seed": spec.seed,
        "command": [_without_folders(word) for word in sys.argv],
        "platform": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "cpus": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit this source tree stands at, with `+changed` where files differ; None for an installed package."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        words = ["git", "-C", str(folder)]
        commit = subprocess.run([*words, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        status = subprocess.run([*words, "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changed" if status.stdout.strip() else "")


def _without_folders(word: str) -> str:
    """An argument without the folders of the user's machine.

    >>> _without_folders("--data=/home/ann/ham10000"), _without_folders("train.lr=1e-3")
    ('--data=.../ham10000', 'train.lr=1e-3')
    """
    key, equals, value = word.rpartition("=")
    name = Path(value).name
    return f"{key}{equals}.../{name}" if Path(value).is_absolute() and name else word
