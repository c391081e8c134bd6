"""Frozen specs: unknown keys are refused with the nearest key named, and `1e-3` is the number it is."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from dermalyze.core.errors import ConfigError, nearest

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
            kind = getattr(field.default, "kind", None)
            if kind is not None and isinstance(filled.get(name), dict) and "kind" not in filled[name]:
                filled[name] = {"kind": kind, **filled[name]}
        return filled


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 with YAML 1.2's floats (`1e-3`), no aliases (alias bombs) and no repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ConfigError(f"line {mark.line + 1}: YAML aliases (*name) are not allowed; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if key.value in keys:
                raise ConfigError(f"line {key.start_mark.line + 1}: key '{key.value}' is given twice; keep one")
            keys.add(key.value)
        return super().construct_mapping(node, deep)


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
        ConfigError: not YAML, a tag that would run code, an alias, a repeated key, or larger than 1 MB.

    >>> parse_yaml("lr: 1e-3", "x.yaml")
    {'lr': 0.001}
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{name}: {len(text)} characters; at most {MAX_YAML_BYTES} are read")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{name}: not a YAML file that dermalyze reads: {error}; no tags, no aliases") from error


def validation_message(error: ValidationError, spec: type[BaseModel], name: str) -> str:
    """One line a problem: where, what, allowed, nearest key."""
    parts = []
    for problem in error.errors():
        where = ".".join(str(step) for step in problem["loc"])
        if problem["type"] == "extra_forbidden":
            key = str(problem["loc"][-1])
            allowed = _fields_at(spec, problem["loc"][:-1])
            hint = nearest(key, allowed) or (f"; allowed: {', '.join(sorted(allowed))}" if allowed else "")
            parts.append(f"unknown key '{where}'{hint}")
        elif problem["type"] == "union_tag_invalid":
            context = problem.get("ctx", {})
            tag, expected = str(context.get("tag")), str(context.get("expected_tags"))
            hint = nearest(tag, [word.strip(" '") for word in expected.split(",")])
            parts.append(f"{where}: kind '{tag}' is not one of {expected}{hint}")
        else:
            got = "" if problem["type"] == "missing" else f", got {_short(problem['input'])}"
            parts.append(f"{where}: {problem['msg']}{got}")
    return f"{name}: " + "; ".join(parts)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _fields_at(spec: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names allowed at a location; union members contribute all of theirs (their tag stands in the location)."""
    from typing import get_args

    candidates: list[Any] = [spec]
    for step in location:
        following: list[Any] = []
        for candidate in candidates:
            if candidate.model_fields.get(step) is not None:
                following += _models(candidate.model_fields[step].annotation, get_args)
            elif "kind" in candidate.model_fields and candidate.model_fields["kind"].default == step:
                following.append(candidate)
        candidates = following
    return sorted({field for candidate in candidates for field in candidate.model_fields})


def _models(annotation: Any, get_args: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument, get_args)]


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Deep merge of mappings; a mapping with another `kind` replaces instead of merging.

    >>> merge({"loss": {"kind": "focal", "gamma": 2}}, {"loss": {"kind": "cross_entropy"}})
    {'loss': {'kind': 'cross_entropy'}}
    """
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind") in (None, old.get("kind"))
        merged[key] = merge(old, value) if same_kind and old is not None else value
    return merged


def parse_set(assignment: str) -> dict[str, Any]:
    """Read one `--set a.b=value` into nested mappings; the value is YAML.

    Raises:
        ConfigError: no `=`, or an empty key.

    >>> parse_set("train.optimizer.lr=1e-4")
    {'train': {'optimizer': {'lr': 0.0001}}}
    """
    key, equals, text = assignment.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set '{assignment}' is not key=value; write for example --set train.epochs=20")
    value: Any = parse_yaml(text, f"--set {key}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"--set {key}: {value} is not a finite number")
    for step in reversed(path):
        value = {step: value}
    return dict(value)
