"""One command, one public function, one help page with examples that parse."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib import metadata

import pytest
import typer
from typer.testing import CliRunner

import dermalyze
from dermalyze import cli

GROUP = typer.main.get_group(cli.app)


def parse(words: list[str]) -> None:
    """Parse a command line without running it; a wrong one raises."""
    name, *rest = cli.spread(words)
    GROUP.commands[name].make_context(name, rest)


def examples(name: str) -> list[str]:
    epilog = GROUP.commands[name].epilog or ""
    return [line.strip() for line in epilog.splitlines() if line.strip().startswith("dermalyze ")]


def test_table_commands_and_functions_are_the_same() -> None:
    functions = {name for name in dermalyze.__all__ if inspect.isfunction(getattr(dermalyze, name))} - {"load_experiment"}
    assert set(GROUP.commands) == set(cli.COMMANDS)
    assert set(cli.COMMANDS.values()) == functions
    packages = {"serve": "serve_http"}  # `dermalyze.serve` is a package
    assert {packages.get(name, name.replace("-", "_")) for name in cli.COMMANDS} == functions


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_has_an_example(name: str) -> None:
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert f"dermalyze {name}" in result.output.partition("Examples:")[2]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_parse(name: str) -> None:
    assert examples(name)
    for example in examples(name):
        words = shlex.split(example.partition(" < ")[0].partition(" > ")[0])
        assert words[:2] == ["dermalyze", name]
        parse(words[1:])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    options = {word for parameter in GROUP.commands[name].params for word in parameter.opts}
    assert "--json" in options


@pytest.mark.parametrize(
    "name",
    sorted(
        set(cli.COMMANDS)
        - {"run", "synth", "fetch", "predict", "ensemble", "schema", "runs", "doctor", "models", "compare", "advise"}
        - {"serve", "verify", "import-weights"}
    ),
)
def test_every_stage_takes_the_run_first(name: str) -> None:
    assert GROUP.commands[name].params[0].name == "run"
    assert GROUP.commands[name].params[0].required


def test_help_tells_every_command_in_full() -> None:
    table = CliRunner().invoke(cli.app, ["--help"]).output.partition("Commands:")[2]
    assert "..." not in table, "a one-line description is cut off; make it shorter"
    assert all(f"\n  {name} " in table for name in cli.COMMANDS)


def test_modules_of_the_extras_are_those_of_the_package() -> None:
    renamed = {"sklearn": "scikit-learn"}
    for extra, modules in cli.EXTRAS.items():
        lines = [line for line in metadata.requires("dermalyze") or [] if f'"{extra}"' in line]
        wanted = {re.split(r"[ ;<>=!~\[]", line)[0] for line in lines}
        assert {renamed.get(module, module) for module in modules.split()} == wanted
