"""One command, one public function, one help page with examples that parse."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module, metadata

import pytest
from typer.testing import CliRunner

import dermalyze
from dermalyze.cli import app
from dermalyze.cli.failures import EXTRAS
from dermalyze.cli.program import program, several, spread
from dermalyze.cli.table import COMMANDS, GROUPS, Group

GROUP = program()
NO_COMMANDS = {"load_experiment", "evaluate_external", "evaluate_predictions", "recalibrate"}
"""Public functions without a command of their own; the last three are options of `evaluate`."""


def parse(words: list[str]) -> None:
    """Parse a command line without running it; a wrong one raises."""
    name, *rest = spread(words)
    GROUP.commands[name].make_context(name, rest)


def test_table_commands_and_functions_are_the_same() -> None:
    functions = {name for name in dermalyze.__all__ if inspect.isfunction(getattr(dermalyze, name))} - NO_COMMANDS
    assert list(GROUP.commands) == list(COMMANDS)
    assert {command.public for command in COMMANDS.values()} == functions
    assert len(COMMANDS) == sum(len(group.commands) for group in GROUPS)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.module)
def test_a_group_has_a_file_with_its_commands_in_order(group: Group) -> None:
    module = import_module(f"dermalyze.cli.{group.module}")
    bodies = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    assert [name.replace("_", "-") for name in bodies if name.replace("_", "-") in COMMANDS] == [c.name for c in group.commands]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_examples_are_those_of_the_table(name: str) -> None:
    assert GROUP.commands[name].help == COMMANDS[name].help
    assert [line.strip() for line in GROUP.commands[name].epilog.splitlines()[2:]] == list(COMMANDS[name].lines)
    assert len(COMMANDS[name].help) <= 58


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f"dermalyze {name}" in result.output.partition("Examples:")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_parse(name: str) -> None:
    assert COMMANDS[name].examples
    for example in COMMANDS[name].lines:
        words = shlex.split(example.partition(" < ")[0].partition(" > ")[0])
        assert words[:2] == ["dermalyze", name]
        parse(words[1:])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    options = {word for parameter in GROUP.commands[name].params for word in parameter.opts}
    assert "--json" in options


@pytest.mark.parametrize(
    "name",
    sorted(
        set(COMMANDS)
        - {"run", "synth", "fetch", "predict", "ensemble", "schema", "runs", "doctor", "models", "compare", "advise"}
        - {"serve", "verify", "import-weights"}
    ),
)
def test_every_stage_takes_the_run_first(name: str) -> None:
    assert GROUP.commands[name].params[0].name == "run"
    assert GROUP.commands[name].params[0].required


def test_help_tells_every_command_in_full_under_its_group() -> None:
    output = CliRunner().invoke(app, ["--help"]).output
    for group in GROUPS:
        section = output.partition(f"\n{group.title}:\n")[2].partition("\n\n")[0]
        shown = [re.fullmatch(r"  ([\w-]+) +(.+)", line) for line in section.splitlines()]
        assert [match and match.groups() for match in shown] == [(command.name, command.help) for command in group.commands]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_shows_whether_it_takes_several_values(name: str) -> None:
    options = {word: option.metavar or "" for option in GROUP.commands[name].params for word in option.opts if word[:1] == "-"}
    assert {word for word, metavar in options.items() if metavar.endswith("...")} == set(several(GROUP.commands[name]))


def test_options_of_several_values_are_those_that_are_lists() -> None:
    assert several(GROUP.commands["prepare"]) == {"--data": False}
    assert several(GROUP.commands["explain"]) == {"--images": False, "--methods": False, "--compare": False}
    assert several(GROUP.commands["predict"]) == {"--metadata": True}
    assert several(GROUP.commands["runs"]) == {}, "beside any number of words each value has its option"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dermalyze sc", ["schema", "score"]),
        ("dermalyze predict --no", ["--no-names"]),
        ("dermalyze synth --balance e", ["even"]),
    ],
)
def test_completion_offers_commands_options_and_choices(typed: str, offered: list[str]) -> None:
    position = str(len(typed.split()) - 1)
    asked = {"_DERMALYZE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": position}
    code = "from dermalyze.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == offered


def test_modules_of_the_extras_are_those_of_the_package() -> None:
    renamed = {"sklearn": "scikit-learn"}
    for extra, modules in EXTRAS.items():
        lines = [line for line in metadata.requires("dermalyze") or [] if f'"{extra}"' in line]
        wanted = {re.split(r"[ ;<>=!~\[]", line)[0] for line in lines}
        assert {renamed.get(module, module) for module in modules.split()} == wanted
