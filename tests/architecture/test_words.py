"""The retired words of `docs/style.md` stay out of names, help, messages, docstrings, templates and pages.

Records of decisions keep their wording.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dermalyze.cli import app
from dermalyze.cli.table import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "dermalyze"

PHRASE = r"(`[^|]+`)"
STYLE = (ROOT / "docs" / "style.md").read_text(encoding="utf-8")
RETIRED = re.findall(rf"^\| {PHRASE} \| [^|]+ \| (names|text|both) \|$", STYLE, flags=re.M)
ALLOWED = re.findall(rf"^\| {PHRASE} \| [^|`]+ \|$", STYLE.partition("are right:")[2].partition("\n## ")[0], flags=re.M)


def pattern(cells: list[str]) -> re.Pattern[str]:
    """Any of the phrases in backticks, as whole words, in any case; a space also matches a hyphen or a line end."""
    phrases = [re.escape(phrase).replace(r"\ ", r"[\s-]+") for cell in cells for phrase in re.findall(r"`([^`]+)`", cell)]
    return re.compile(rf"\b(?:{'|'.join(phrases)})\b", flags=re.I)


RIGHT = pattern(ALLOWED)
PATTERNS = {
    where: {cell.split("`")[1]: pattern([cell]) for cell, checked in RETIRED if checked in (where, "both")}
    for where in ("names", "text")
}


def count(text: str, where: str) -> dict[str, int]:
    """How often each retired word is in a text ("text") or in names whose words are divided by spaces ("names")."""
    text = RIGHT.sub(" ", text)
    found = {word: len(form.findall(text)) for word, form in PATTERNS[where].items()}
    return {word: number for word, number in found.items() if number}


def words_of(name: str) -> str:
    """`class_centres` and `ClassCentres` as `class centres`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).lower()


def names(path: Path) -> str:
    """The stem of a module and its public functions and classes, one per line."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    defined = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return "\n".join(words_of(name) for name in [path.stem, *defined] if not name.startswith("_"))


def literals(path: Path) -> str:
    """The prose in the strings of a module: messages, help and docstrings, without code."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n;\n".join(prose(text) for text in strings if " " in text.strip())


def prose(markdown: str) -> str:
    """A text without code blocks, code spans and targets of links."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    text = re.sub(r"^    .*$", "", text, flags=re.M) if text.startswith("# ") else text
    return re.sub(r"``?[^`\n]+``?|(?<=\])\([^)]*\)", " ", text)


def texts() -> Iterator[tuple[str, str]]:
    """(where it is, the text) of everything that a person reads, but for names."""
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        if path.parent.name == "decisions":
            continue
        yield str(path.relative_to(ROOT)), prose(path.read_text(encoding="utf-8"))
    for path in (ROOT / "experiments").glob("*.yaml"):
        yield str(path.relative_to(ROOT)), "\n".join(re.findall(r"# (.*)", path.read_text(encoding="utf-8")))
    for path in SOURCE.rglob("*.py"):
        yield str(path.relative_to(ROOT)), literals(path)
    for path in SOURCE.rglob("*.html.jinja"):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r"<style>.*?</style>|\{% block style %\}.*?\{% endblock %\}", " ", text, flags=re.S)
        yield str(path.relative_to(ROOT)), re.sub(r"\{%.*?%\}|\{\{.*?\}\}|<[^>]*>", " ", text, flags=re.S)
    script = SOURCE / "serve" / "web" / "texts.js"
    strings = re.findall(r'"([^"\n]+)"|`([^`]+)`', script.read_text(encoding="utf-8"))
    yield str(script.relative_to(ROOT)), "\n".join(text for pair in strings for text in pair if " " in text)
    for command in ["", *COMMANDS]:
        yield f"dermalyze {command}".strip() + " --help", CliRunner().invoke(app, [*command.split(), "--help"]).output


def test_no_retired_word_is_used() -> None:
    found = {f"{path}: {word}": n for path, text in texts() for word, n in count(text, "text").items()}
    for path in SOURCE.rglob("*.py"):
        found |= {f"{path.relative_to(ROOT)}, names: {word}": n for word, n in count(names(path), "names").items()}
    assert not found, f"retired words (docs/style.md says what to use): {found}"


def test_the_tables_are_read() -> None:
    assert len(RETIRED) == STYLE.count(" | both |") + STYLE.count(" | text |") + STYLE.count(" | names |") > 30
    assert len(ALLOWED) == 3


@pytest.mark.parametrize(
    ("text", "where", "word"),
    [
        ("Two Pictures per case.", "text", "picture"),
        ("the calibration\npart", "text", "training part"),
        ("score out-of-distribution and foreign images", "text", "foreign"),
        (words_of("KnownBackbones"), "names", "known"),
        (words_of("class_centres"), "names", "centre"),
    ],
)
def test_a_retired_word_is_counted(text: str, where: str, word: str) -> None:
    assert count(text, where) == {word: 1}


def test_right_phrases_and_code_are_not_counted() -> None:
    assert count(words_of("fit_linear_probe"), "names") == {}
    assert count(prose("# Page\n\n`dermalyze probe` fits a linear probe.\n\n    dermalyze probe RUN\n"), "text") == {}
