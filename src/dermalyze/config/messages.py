"""Validation errors in one line: where, what, what is allowed, and the nearest key in the schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import SequenceMatcher
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from dermalyze.errors import nearest

HERE, ELSEWHERE = 0.6, 0.75
"""Least similarity (0..1) for a suggestion: a key of the same mapping, a key anywhere else."""

SYNONYMS = {
    "learning_rate": "lr",
    "training": "train",
    "scheduler": "schedule",
    "dropout_rate": "dropout",
    "early_stopping_patience": "patience",
    "use_amp": "amp",
    "use_torch_compile": "compile",
    "fast_mode": "mode",
    "image_size": "size",
    "val_size": "fractions",
    "test_size": "fractions",
    "head_type": "head",
    "freeze_backbone": "strategy",
    "class_weights": "imbalance",
    "use_weighted_sampling": "imbalance",
    "augmentation": "augment",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "gradient_clip": "clip_norm",
    "weight_average": "ema",
}
"""Synonyms of our keys, from the Dermalyze document and common trainers."""


@dataclass(frozen=True)
class Key:
    """One key of the schema: its dotted path without union tags, and the kind whose key it is, if of one."""

    path: str
    kind: str | None

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def parent(self) -> str:
        return self.path.rpartition(".")[0]


def schema_keys(spec: type[BaseModel], prefix: str = "", kind: str | None = None) -> Iterator[Key]:
    """Every key of a spec and of the specs inside it.

    >>> from dermalyze.config.train import TrainSpec
    >>> Key("optimizer.momentum", "sgd") in set(schema_keys(TrainSpec))
    True
    """
    for name, field in spec.model_fields.items():
        path = f"{prefix}.{name}".strip(".")
        yield Key(path, kind)
        for model in models_in(field.annotation):
            inner = model.model_fields.get("kind")
            yield from schema_keys(model, path, inner.default if inner is not None else None)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs that an annotation names, through unions and `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_in(argument)]


def suggestion(key: str, parent: str, spec: type[BaseModel]) -> str:
    """Suggestion for an unknown key: ' did you mean', 'belongs to kind', or the allowed keys.

    >>> from dermalyze.config.experiment import ExperimentSpec
    >>> suggestion("learning_rte", "train", ExperimentSpec)
    "did you mean 'train.optimizer.lr'?"
    >>> suggestion("qqq", "data", ExperimentSpec)
    'allowed: classes, follow_links, label_map, max_bad_fraction, missing_values, modality, path, source, workers'
    """
    keys = list(dict.fromkeys(schema_keys(spec)))
    here = [k for k in keys if k.parent == parent]
    kinds = sorted({k.kind for k in here if k.name == key and k.kind is not None})
    if kinds:
        return f"it belongs to kind {' or '.join(kinds)}"

    best = closest(key, parent, [k.path for k in keys])
    if best is not None:
        return f"did you mean '{best}'?"
    return f"allowed: {', '.join(sorted({k.name for k in here}))}" if here else "it is a value, not a mapping"


def closest(key: str, parent: str, paths: Sequence[str]) -> str | None:
    """The dotted path whose last word, or a synonym of it, is most like `key`; keys beside it count for more. None if none is.

    >>> closest("epoch", "train", ["train.epochs", "model.head"])
    'train.epochs'
    """

    def likeness(path: str) -> float:
        place, _, name = path.rpartition(".")
        words = [name, *(word for word, ours in SYNONYMS.items() if ours == name)]
        ratio = max(SequenceMatcher(None, word, key.lower()).ratio() for word in words)
        if ratio < (HERE if place == parent else ELSEWHERE):
            return 0.0
        return ratio + 0.1 * (place == parent) - 0.001 * path.count(".")

    best = max(paths, key=likeness)
    return best if likeness(best) > 0 else None


def place(spec: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, Any]:
    """A pydantic location as the dotted path in the file, and the annotation of its last key.

    >>> from dermalyze.config.experiment import ExperimentSpec
    >>> place(ExperimentSpec, ("train", "optimizer", "adamw", "lr"))[0]
    'train.optimizer.lr'
    """
    steps: list[str] = []
    candidates: list[type[BaseModel]] = [spec]
    annotation: Any = spec
    for step in location:
        owners = [c for c in candidates if isinstance(step, str) and step in c.model_fields]
        tagged = [c for c in candidates if "kind" in c.model_fields and c.model_fields["kind"].default == step]
        if owners:
            steps.append(str(step))
            annotation = owners[0].model_fields[str(step)].annotation
            candidates = [model for owner in owners for model in models_in(owner.model_fields[str(step)].annotation)]
        elif tagged and step != location[-1]:
            candidates = tagged
        elif isinstance(step, int) or candidates or (get_origin(annotation) is dict and step != "[key]"):
            steps.append(str(step))
    return ".".join(steps), annotation


def validation_message(error: ValidationError, spec: type[BaseModel], name: str) -> str:
    """One line for all problems: where, what, allowed, nearest key."""
    parts = [_describe(dict(problem), spec) for problem in error.errors()]
    return f"{name}: " + "; ".join(dict.fromkeys(parts))


def _describe(problem: dict[str, Any], spec: type[BaseModel]) -> str:
    where, annotation = place(spec, problem["loc"])
    where = where or "the experiment"
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        parent, _, key = where.rpartition(".")
        return f"unknown key '{where}'; {suggestion(key, parent, spec)}"
    if problem["type"] == "union_tag_invalid":
        context = problem.get("ctx", {})
        tag, expected = str(context.get("tag")), str(context.get("expected_tags"))
        kinds = [word.strip(" '") for word in expected.split(",")]
        return f"{where}: kind '{tag}' is not one of {', '.join(kinds)}{nearest(tag, kinds)}"
    if problem["type"] in ("model_type", "model_attributes_type", "dict_type"):
        kinds = [model.model_fields["kind"].default for model in models_in(annotation) if "kind" in model.model_fields]
        hint = f"write {{kind: {value}}}" if value in kinds else "write its keys below it"
        off = "; null switches it off" if NoneType in get_args(annotation) else ""
        return f"{where}: got {_short(value)}, must be a mapping; {hint}{off}"
    text = problem["msg"].removeprefix("Value error, ")
    quoted = isinstance(value, bool | int | float | date) and problem["type"] == "string_type"
    hint = "; YAML reads it so without quotes: write it in quotes" if quoted else ""
    return f"{where}: {text}" + ("" if problem["type"] in ("missing", "value_error") else f", got {_short(value)}{hint}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
