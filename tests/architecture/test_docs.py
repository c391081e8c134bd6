"""What the pages tell a person to type exists: commands, options, configuration keys, links, make targets."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dermalyze
from dermalyze.cli.program import program, spread
from dermalyze.cli.table import COMMANDS
from dermalyze.config.base import parse_yaml
from dermalyze.config.experiment import build_experiment

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
GROUP = program()


def ident(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(page: Path) -> list[str]:
    """Lines that a person would type: in bash blocks, and in indented ones."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += [line.strip() for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?dermalyze ", line)]


def test_pages_show_commands() -> None:
    assert len([line for page in PAGES for line in commands(page)]) > 20


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_commands_parse(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(re.split(r" [<>|] ", line)[0], comments=True)[1:]
        if not words[0].startswith("-"):
            name, *rest = spread(words)
            assert name in GROUP.commands, line
            GROUP.commands[name].make_context(name, rest)


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_settings_are_valid(page: Path) -> None:
    for line in commands(page):
        words = spread(shlex.split(line, comments=True))
        build_experiment({}, line, [words[i + 1] for i, word in enumerate(words) if word == "--set"])
    for block in blocks(page, "yaml"):
        build_experiment(parse_yaml(block, page.name), page.name)


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_python_names_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dermalyze":
                assert node.attr in dermalyze.__all__, node.attr
            if isinstance(node, ast.ImportFrom) and node.module == "dermalyze":
                assert {alias.name for alias in node.names} <= set(dermalyze.__all__)


@pytest.mark.parametrize("page", PAGES, ids=ident)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    for target in re.findall(r"(?:`|^    )make ([a-z-]+)", page.read_text(encoding="utf-8"), flags=re.M):
        assert target in targets, f"{page.name}: make {target}"


def test_every_command_has_its_line_and_its_section_on_the_command_page() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for name, command in COMMANDS.items():
        assert re.search(rf"^\| `dermalyze {name}\b.*`dermalyze\.{command.public}` \|$", page, flags=re.M), name
        assert f"\n### {name}\n" in page


def test_what_is_generated_is_up_to_date() -> None:
    words = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", ["docs/reference/cli.md", "src/dermalyze/__init__.pyi"])
def test_what_is_generated_and_differs_is_named(tmp_path: Path, file: str) -> None:
    for name in ("docs/generate.py", "docs/reference/cli.md", "src/dermalyze/__init__.pyi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / file).write_text((ROOT / file).read_text(encoding="utf-8").replace("linear_probe", "frozen"), encoding="utf-8")
    words = [sys.executable, str(tmp_path / "docs" / "generate.py")]
    refused = subprocess.run([*words, "--check"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr) == (1, f"out of date: {file}; run: make reference\n")
    subprocess.run(words, check=True)
    assert (tmp_path / file).read_bytes() == (ROOT / file).read_bytes()


def test_exit_codes_are_those_of_the_errors() -> None:
    errors = [getattr(dermalyze, name) for name in dermalyze.__all__ if name.endswith("Error")]
    codes = {error.exit_code for error in errors} - {dermalyze.DermalyzeError.exit_code}
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", page, flags=re.M)}
    assert codes <= listed
