"""What the page of differences says to be there is there, and what it says to be missing is missing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dermalyze.cli.program import program
from dermalyze.cli.table import COMMANDS
from dermalyze.config.experiment import json_schema
from dermalyze.core.runtime import Runtime
from dermalyze.data.sources import SOURCES
from dermalyze.imaging.modalities import MODALITIES
from dermalyze.models.backbones import check_name
from dermalyze.tasks.base import TASKS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "differences.md").read_text(encoding="utf-8")
THERE, _, MISSING = PAGE.partition("## Not in this version")

NOT_OURS = {"densenet264d", "tf_efficientnetv2_*", ".pt", "torch.export", "efficientnet_v2 small"}
"""Names of others on the page."""


def words(value: Any) -> set[str]:
    """Every key and every allowed word of a schema."""
    if isinstance(value, dict):
        own = set(value.get("properties", ())) | set(map(str, value.get("enum", ()))) | {str(value.get("const"))}
        return own | set().union(*map(words, value.values()))
    return set().union(*map(words, value)) if isinstance(value, list) else set()


SCHEMA_WORDS = words(json_schema())
OPTIONS = {option for command in program().commands.values() for one in command.params for option in one.opts}


def is_key(name: str) -> bool:
    """Whether a dotted name is a setting of an experiment."""
    schema = json_schema()
    nodes = [schema]
    for step in name.split("."):
        found = []
        for node in nodes:
            for one in (node, *node.get("anyOf", ()), *node.get("oneOf", ())):
                target = schema["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
                found += [target["properties"][step]] if step in target.get("properties", {}) else []
                found += [
                    schema["$defs"][inner["$ref"].rpartition("/")[2]]["properties"][step]
                    for inner in (*target.get("anyOf", ()), *target.get("oneOf", ()))
                    if "$ref" in inner and step in schema["$defs"][inner["$ref"].rpartition("/")[2]].get("properties", {})
                ]
        nodes = found
    return bool(nodes)


def exists(name: str) -> bool:
    """Whether something that the page names is there."""
    if (ROOT / name).is_file() and "/" in name:
        return True
    key, _, value = name.partition(": ")
    if "." in key and is_key(key):
        return value in ("", "1") or value in SCHEMA_WORDS
    command, *options = name.split(" ")
    if command in COMMANDS or command.startswith("--"):
        return all(word in OPTIONS for word in (command, *options) if word.startswith("--"))
    if name in SCHEMA_WORDS:
        return True
    try:
        check_name(name)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([^`]+)`", THERE)) - NOT_OURS))
def test_what_the_page_names_is_there(name: str) -> None:
    assert exists(name), f"{name}: no setting, command, option, file or network of that name"


def test_what_is_not_there_is_found() -> None:
    assert not any(map(exists, ("train.magic", "inference.recipes: best", "predict --names", "docs/none.md", "squish")))


def fields(part: str) -> bool:
    return any(part in word for word in SCHEMA_WORDS)


ABSENT: dict[str, Callable[[], bool]] = {
    "segmentation": lambda: "segmentation" in TASKS,
    "MedMNIST as a source": lambda: any("mnist" in kind for kind in SOURCES),
    "chest X-ray sources": lambda: any("chest" in kind or "nih" in kind for kind in (*SOURCES, *MODALITIES)),
    "hyperparameter search": lambda: "tune" in COMMANDS,
    "cross-validation as one command": lambda: any("valid" in name or "fold" in name for name in COMMANDS),
    "distillation": lambda: fields("distil") or any("distil" in name for name in COMMANDS),
    "three-dimensional volumes": lambda: fields("volume") or any("volume" in kind for kind in MODALITIES),
    "several devices": lambda: hasattr(Runtime, "world_size") or fields("ranks"),
}
"""Each line of the page's last list, and what would show that it is wrong by now."""


def test_the_list_of_what_is_missing_is_checked_line_by_line() -> None:
    assert re.findall(r"^- (.+)$", MISSING, flags=re.M) == list(ABSENT)


@pytest.mark.parametrize("name", list(ABSENT))
def test_what_the_page_says_to_be_missing_is_missing(name: str) -> None:
    assert not ABSENT[name](), f"{name} is there: take it off the page"
