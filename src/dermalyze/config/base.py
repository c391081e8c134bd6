"""Frozen specs: unknown keys are refused with the nearest key named, and `1e-3` is the number it is."""

from __future__ import annotations

import math
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from dermalyze.errors import ConfigError

MAX_YAML_BYTES = 1_000_000


class Spec(BaseModel):
    """Base of every spec: immutable, closed, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _default_kinds(cls, values: Any) -> Any:
        """A mapping without `kind` means the field's default kind, so that `optimizer: {lr: 1e-4}` is enough."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(filled.get(name), bool) and not _takes_bool(field.annotation):
                raise ValueError(
                    f"{name} is {str(filled[name]).lower()} (YAML reads yes, no, on, off so), must be a value of its own"
                )
            kind = getattr(field.default, "kind", None)
            if kind is not None and isinstance(filled.get(name), dict) and "kind" not in filled[name]:
                filled[name] = {"kind": kind, **filled[name]}
        return filled


def _takes_bool(annotation: Any) -> bool:
    """Whether true and false are values of a field; pydantic would take them as 1 and 0 for any number."""
    return (
        annotation in (bool, Any)
        or (isinstance(annotation, type) and issubclass(annotation, BaseModel))
        or any(_takes_bool(argument) for argument in get_args(annotation))
    )


def _kinds_at(spec: type[BaseModel], path: list[str]) -> set[Any]:
    """The types that a field may have; none where there is no such field.

    >>> from dermalyze.config.data import CsvSource
    >>> sorted(kind.__name__ for kind in _kinds_at(CsvSource, ["file"]))
    ['NoneType', 'str']
    """
    annotations: list[Any] = [spec]
    for step in path:
        found: list[Any] = []
        for one in (each for annotation in annotations for each in _alternatives(annotation)):
            if isinstance(one, type) and issubclass(one, BaseModel):
                found += [one.model_fields[step].annotation] if step in one.model_fields else []
            elif get_origin(one) is dict:
                found.append(get_args(one)[1])
        annotations = found
    return {get_origin(one) or one for annotation in annotations for one in _alternatives(annotation)}


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, without what is only annotated."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [one for argument in get_args(annotation) for one in _alternatives(argument)]
    return [annotation]


def _list_or_text(text: str) -> Any:
    """The list or mapping that a text is in YAML, else the text."""
    try:
        value = parse_yaml(text, "")
    except ConfigError:
        return text
    return value if isinstance(value, list | dict) else text


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 with YAML 1.2's numbers (`1e-3`, `010` is ten), no aliases (alias bombs), merges or repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ConfigError(f"line {mark.line + 1}: YAML aliases (*name) are not allowed; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{line}: a key is a list or a mapping, must be a word")
            if key.tag == "tag:yaml.org,2002:merge":
                raise ConfigError(f"{line}: YAML merge keys (<<) are not allowed; write the keys out")
            if key.value in keys:
                raise ConfigError(f"{line}: key '{key.value}' is given twice; keep one")
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, form) for tag, form in rules if tag != "tag:yaml.org,2002:int"]
    for letter, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, name: str) -> Any:
    """Parse YAML safely.

    Args:
        text: the document.
        name: what to call it in messages.

    Raises:
        ConfigError: not YAML, a tag that would run code, an alias, a merge key, a repeated key, or larger than 1 MB.

    >>> parse_yaml("lr: 1e-3", "x.yaml")
    {'lr': 0.001}
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{name}: {len(text)} characters; at most {MAX_YAML_BYTES} are read")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark is not None else ""
        raise ConfigError(f"{name}: {line}{error.problem}; only plain YAML is read: no tags, no aliases") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: the 13th month, 5,000 digits
        raise ConfigError(f"{name}: not a YAML file that dermalyze reads: {error}; only plain YAML is read") from error


def why_unreadable(error: Exception) -> str:
    """What the system says of a file, without its path.

    >>> why_unreadable(FileNotFoundError(2, "No such file or directory", "/home/ann/x.yaml"))
    'No such file or directory'
    """
    return (isinstance(error, OSError) and error.strerror) or str(error)


def read_mapping(path: Path, kind: str) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty one.

    Args:
        path: of the file, in UTF-8.
        kind: what it should map, for the message.

    Raises:
        ConfigError: unreadable, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: cannot be read: {why_unreadable(error)}; give a YAML file in UTF-8") from error
    values = parse_yaml(text, path.name)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name}: holds a {type(values).__name__}, must be a mapping {kind}")
    return values


def merge(base: dict[str, Any], changes: dict[str, Any], *, empty_replaces: bool = False) -> dict[str, Any]:
    """Deep merge of mappings; a mapping with another `kind` replaces instead of merging; an empty one with `empty_replaces`.

    >>> merge({"loss": {"kind": "focal", "gamma": 2}}, {"loss": {"kind": "cross_entropy"}})
    {'loss': {'kind': 'cross_entropy'}}
    >>> merge({"kwargs": {"a": 1}}, {"kwargs": {}}), merge({"kwargs": {"a": 1}}, {"kwargs": {}}, empty_replaces=True)
    ({'kwargs': {'a': 1}}, {'kwargs': {}})
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind") in (None, old.get("kind"))
        deeper = old is not None and same_kind and (value or not empty_replaces)
        merged[key] = merge(old, value, empty_replaces=empty_replaces) if deeper and old is not None else value
    return merged


def parse_set(assignment: str, spec: type[BaseModel] | None = None) -> dict[str, Any]:
    """Read one `--set a.b=value` into nested mappings; the value is YAML, but for a text field the text as it stands,
    without quotes around it.

    Args:
        assignment: of one value.
        spec: whose fields tell which of them are texts.

    Raises:
        ConfigError: no `=`, or an empty key.

    >>> parse_set("train.optimizer.lr=1e-4")
    {'train': {'optimizer': {'lr': 0.0001}}}
    >>> from dermalyze.config.data import CsvSource
    >>> parse_set("file=set #2", CsvSource), parse_set("file=0123", CsvSource), parse_set("file=", CsvSource)
    ({'file': 'set #2'}, {'file': '0123'}, {'file': None})
    """
    key, equals, text = assignment.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set '{assignment}' is not key=value; for example: --set train.epochs=20")
    value: Any = text or None
    kinds = _kinds_at(spec, path) if spec is not None else set()
    quoted = len(text) > 1 and text[0] in "'\"" and text[0] == text[-1]
    if str not in kinds or kinds & {int, float, bool, Any} or quoted:
        value = parse_yaml(text, f"--set {key}")
    elif kinds & {list, tuple, dict} and text[:1] in ("[", "{"):
        value = _list_or_text(text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"--set {key}: {value} is not a finite number")
    for step in reversed(path):
        value = {step: value}
    return dict(value)
