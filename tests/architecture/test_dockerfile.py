"""The Dockerfile, as far as it can be read: what it starts parses, who runs it, what it leaves out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import typer

from dermalyze.cli import app
from dermalyze.serve.server.guard import OPEN

ROOT = Path(__file__).resolve().parents[2]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
STEPS = [(line.split()[0], line.partition(" ")[2].strip()) for line in LINES if line and not line.startswith("#")]


def last(step: str) -> str:
    return [words for name, words in STEPS if name == step][-1]


def test_it_starts_what_the_command_line_takes() -> None:
    words = json.loads(last("ENTRYPOINT")) + json.loads(last("CMD"))
    assert words[0] == "dermalyze"
    group = typer.main.get_group(app)
    group.commands[words[1]].make_context(words[1], words[2:])


def test_it_runs_as_nobody_and_asks_for_its_health() -> None:
    assert int(last("USER")) > 0
    assert [name for name, _ in STEPS].index("USER") > [name for name, _ in STEPS].index("COPY")
    assert any(path in last("HEALTHCHECK") for path in OPEN)


def test_it_installs_the_server_alone_and_copies_what_it_may_see() -> None:
    installed = " ".join(words for name, words in STEPS if name == "RUN")
    assert re.findall(r"\.\[([a-z,]+)\]", installed) == ["serve"]
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for words in (words for name, words in STEPS if name == "COPY" and not words.startswith("--from")):
        for source in words.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
