"""Commands run in this process, each in a folder of its own; what they said, wrote and left alone."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from task_sets import SETS, experiment

from dermalyze.cli import main
from dermalyze.core.run import Run
from dermalyze.errors import DermalyzeError

IMAGES, OTHER_IMAGES = 40, 66
"""Of the set; of another set of the same task, which must hold 30 groups to fit on and 30 to measure on."""

IMAGE = "s0n000"
"""The image that single answers are asked for."""

Listing = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Row:
    """A command line and what is expected of it.

    Attributes:
        words: the command line; `{run}`, `{folder}` (where the run stands), `{inputs}` and `{image}` are filled in. None: what
            the row before it left is looked at once more.
        files: that it writes, below `{folder}`; patterns.
        check: asserts that the numbers are those of the library's functions.
        after: the row whose folder is copied to work in; None: an empty one.
        refused: tasks that lack a capability to the words that name it.
        given: makes what else the command reads.
    """

    words: str | None
    files: tuple[str, ...]
    check: Callable[[Done], None]
    after: str | None = "evaluate"
    refused: Mapping[str, str] = field(default_factory=dict)
    given: Callable[[Done], None] | None = None


@dataclass(frozen=True)
class Done:
    """A command that ended.

    Attributes:
        kind: of the task.
        folder: where it worked.
        code, out, err: exit code and what it printed.
        before, after: name, size and time of every file below the folder.
    """

    kind: str
    folder: Path
    code: int
    out: str
    err: str
    before: Listing = field(repr=False)
    after: Listing = field(repr=False)

    @property
    def run(self) -> Run:
        """The run of the folder."""
        return Run.open(self.folder / "run")

    @property
    def inputs(self) -> Path:
        """What commands read: both sets, experiment, study and answers for the report."""
        return self.folder.parent / "inputs"

    @property
    def values(self) -> Any:
        """What it printed, from JSON."""
        return parse(self.out)

    @property
    def written(self) -> list[str]:
        """Files that are new or were written anew, and are not empty."""
        return [name for name, stamp in self.after.items() if self.before.get(name) != stamp and stamp[0]]

    def read(self, name: str) -> Any:
        """A JSON file below the folder, or the lines of one."""
        text = (self.folder / name).read_text(encoding="utf-8")
        return [parse(line) for line in text.splitlines()] if name.endswith(".jsonl") else parse(text)

    def faults(self) -> Iterator[str]:
        """Where what it printed or wrote as JSON has a number that is none."""
        if self.out.startswith("{"):
            yield from faults(self.values, "printed")
        for name in self.written:
            if name.endswith((".json", ".jsonl")):
                yield from faults(self.read(name), name)


class Worlds:
    """Rows of a table on one task, each done once, whatever the order in which they are asked for.

    Args:
        kind: of the task.
        root: an empty folder.
        table: name to row.
    """

    def __init__(self, kind: str, root: Path, table: Mapping[str, Row]) -> None:
        self.kind, self.root, self.table, self.done = kind, root, table, dict[str, Done]()
        self.inputs = root / "inputs"
        settings = experiment(self.inputs / "set", SETS[kind](self.inputs / "set", IMAGES, 0))
        SETS[kind](self.inputs / "other", OTHER_IMAGES, 1)
        variants = {"first": {}, "second": {"train.optimizer.lr": 0.01}}
        study = {"name": "two", "experiment": settings, "variants": variants}
        answers = {"title": "Forty images"}
        for name, values in (("experiment", settings), ("study", study), ("report", answers)):
            (self.inputs / f"{name}.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")

    def after(self, name: str) -> Done:
        """The folder as a row's command left it."""
        if name not in self.done:
            self.done[name] = self._do(name, self.table[name])
        return self.done[name]

    def _do(self, name: str, row: Row) -> Done:
        before = None if row.after is None else self.after(row.after)
        folder = self.root / f"{len(self.done):02}"
        if before is None:
            folder.mkdir()
        else:
            assert before.code == 0, f"{name} comes after {row.after}, which failed: {before.err}"
            if row.words is None:
                return before
            shutil.copytree(before.folder, folder)
        assert row.words is not None
        start = Done(self.kind, folder, 0, "", "", {}, {})
        if row.given is not None:
            row.given(start)
        places = {"run": folder / "run", "folder": folder, "inputs": self.inputs, "image": self.inputs / "set" / f"{IMAGE}.png"}
        words = [word.format_map(places) for word in shlex.split(row.words)]
        listed = listing(folder)
        code, out, err = (serve if words[0] == "serve" else call)(words)
        return Done(self.kind, folder, code, out, err, listed, listing(folder))


def call(words: list[str]) -> tuple[int, str, str]:
    """Exit code, output and error output of the command line."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def serve(words: list[str]) -> tuple[int, str, str]:
    """What the server of `serve MODEL` answers to `PICTURE`, without a socket; exit code 0 where it answers."""
    from starlette.testclient import TestClient

    from dermalyze.config.serve import ServeSpec
    from dermalyze.serve.server.app import build_app
    from dermalyze.serve.server.logs import Log
    from dermalyze.serve.server.service import Service

    _, model, picture = words
    try:
        service = Service([Path(model)], ServeSpec(decoders=1, threads=1))
    except DermalyzeError as error:
        return error.exit_code, "", f"error: {error}\n"
    try:
        app = build_app(service, hosts=("localhost",), log=Log(io.StringIO()))
        client = TestClient(app, base_url="http://localhost")
        response = client.post("/v1/predict", files=[("file", ("x.png", Path(picture).read_bytes()))])
    finally:
        service.close()
    return int(response.status_code != 200), response.text, ""


def listing(folder: Path) -> Listing:
    """Every file below a folder, with its size and time."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def parse(text: str) -> Any:
    """JSON, and the constants that it has not, which `faults` then reports."""
    return json.loads(text, parse_constant=float)


def faults(value: Any, path: str = "", said: bool = False) -> Iterator[str]:
    """Where a number is not finite, or an estimate is null and neither its note nor the words of a verdict on it say why.

    >>> list(faults({"a": {"value": 1.0, "low": None, "note": ""}, "b": [float("nan")], "c": {"value": None, "note": "n = 0"}}))
    ['/a/low is null, and nothing says why', '/b/0 is nan']
    """
    if isinstance(value, Mapping):
        said = bool(value.get("note") or (value.get("words") if "verdict" in value else said))
        for key in ("value", "low", "high"):
            if "value" in value and value.get(key, 0.0) is None and not said:
                yield f"{path}/{key} is null, and nothing says why"
        for key, one in value.items():
            yield from faults(one, f"{path}/{key}", said)
    elif isinstance(value, list):
        for i, one in enumerate(value):
            yield from faults(one, f"{path}/{i}", said)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path} is {value}"
