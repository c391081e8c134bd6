"""Read the documents' own configurations, Dermalyze's `config.yaml` or the MedMNIST guide's model, and say how each key was
taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dermalyze.config.base import merge, parse_yaml, why_unreadable
from dermalyze.config.messages import closest
from dermalyze.errors import ConfigError, nearest

Values = dict[str, Any]

DOCUMENT: Values = {
    "model": {
        "name": "efficientnet_v2",
        "size": "small",
        "pretrained": True,
        "head_type": "simple",
        "dropout_rate": 0.35,
        "freeze_backbone": False,
    },
    "training": {
        "batch_size": 32,
        "epochs": 40,
        "lr": 3e-4,
        "weight_decay": 0.02,
        "num_workers": 4,
        "use_amp": False,
        "use_torch_compile": False,
        "fast_mode": True,
        "use_weighted_sampling": True,
        "early_stopping_patience": 6,
        "prefetch_factor": 2,
        "persistent_workers": True,
        "scheduler": {"type": "cosine", "T_0": 20, "eta_min": 1e-5, "warmup_pct": 0.05},
    },
    "loss": {"type": "cross_entropy", "label_smoothing": 0.05},
    "data": {"val_size": 0.15, "test_size": 0.15, "lesion_aware": True},
    "seed": 42,
}
"""The document's values; a key that a file leaves out is taken from here."""

OPTIONAL = {
    "model.num_classes": int,
    "training.seed": int,
    "training.use_class_weights": bool,
    "training.gradient_accumulation_steps": int,
    "training.gradient_clip": float,
    "training.scheduler.T_mult": int,
    "training.scheduler.warmup_epochs": float,
    "loss.gamma": float,
    "loss.focal_gamma": float,
    "loss.alpha": float,
    "loss.focal_alpha": float,
    "loss.use_class_weights": bool,
    "data.data_dir": str,
    "data.image_size": int,
    "data.seed": int,
}
"""Keys that the document describes without giving them a place in its sample, and their types."""

SIZES = {"small": "tf_efficientnetv2_s", "medium": "tf_efficientnetv2_m", "large": "tf_efficientnetv2_l"}
SCHEDULERS = {
    "cosine": "cosine_restarts",
    "cosine_warm_restarts": "cosine_restarts",
    "cosine_annealing": "cosine",
    "onecycle": "one_cycle",
    "one_cycle": "one_cycle",
    "none": "constant",
    "constant": "constant",
}
SLIP = re.compile(r"^(\s*)(\w+):(true|false|[-+]?[\d.]+(?:[eE][-+]?\d+)?)(?=\s*(?:#.*)?$)", re.MULTILINE)
"""A known key with no space after its colon, as the document's sample has it (`lesion_aware:true`): YAML reads no key there."""


def read_legacy(path: Path) -> tuple[Values, tuple[str, ...]]:
    """`from_legacy` on a file.

    Raises:
        ConfigError: unreadable, or as `from_legacy`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: cannot be read: {why_unreadable(error)}; give a YAML file in UTF-8") from error
    values, lines = from_legacy(text, path.name)
    return values, tuple(lines)


def from_legacy(text: str, name: str) -> tuple[Values, list[str]]:
    """Convert the document's configuration.

    Args:
        text: the file's content; keys that it leaves out have the document's values.
        name: what to call it in messages.

    Returns:
        our mapping (validate it with `build_experiment`), and one line a key that says how it was taken.

    Raises:
        ConfigError: not YAML, an unknown key or word, a value of another type.

    >>> values, lines = from_legacy("training:\\n  lr: 1e-3\\n", "config.yaml")
    >>> values["train"]["optimizer"]["lr"], lines[0]
    (0.001, 'training.lr 0.001: train.optimizer.lr 0.001')
    """
    known = {**{key: type(value) for key, value in _flat(DOCUMENT).items()}, **OPTIONAL}
    lines: list[str] = []

    def mend(match: re.Match[str]) -> str:
        if match[2] not in {key.rpartition(".")[2] for key in known}:
            return match[0]
        lines.append(f"{match[2]}:{match[3]} has no space after the colon; read as {match[2]}: {match[3]}")
        return f"{match[1]}{match[2]}: {match[3]}"

    given = parse_yaml(SLIP.sub(mend, text), name)
    if given is None:
        given = {}
    if not isinstance(given, dict):
        raise ConfigError(f"{name}: holds a {type(given).__name__}, must be a mapping of keys (model, training, loss, data)")
    if "architecture" in given:
        return _network(given, name)
    _check(given, "", known, name)
    old, stated = _flat(merge(DOCUMENT, given)), _flat(given)
    ours: Values = {}
    for rule in (_model, _training, _schedule, _loss, _imbalance, _data):
        values, said = rule(old, name)
        ours = merge(ours, values)
        lines += [f"{key} {_yaml(old[key])}: {how}" for key, how in said.items() if key in stated]
    rest = [key for key in _flat(DOCUMENT) if key not in stated]
    if rest:
        lines.append(f"not set, so the document's default: {', '.join(f'{key} {_yaml(old[key])}' for key in rest)}")
    return ours, lines


NETWORK: dict[str, type] = {
    "architecture": str, "variant": str, "pretrained": bool, "num_classes": int, "dropout_rate": float, "patch_size": int,
}  # fmt: skip
"""Keys of a model in the MedMNIST guide."""
PATCHES = {"tiny": (16,), "small": (8, 16, 32), "base": (8, 16, 32), "large": (14, 16, 32), "huge": (14,)}
"""Edges of a patch, in pixels, of the transformers at 224 that timm has."""
VARIANTS = {
    "resnet": ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    "densenet": ("densenet121", "densenet169", "densenet201", "densenet264"),
    "efficientnet": tuple(f"efficientnet_b{n}" for n in range(8)),
    "vit": tuple(f"vit_{size}" for size in PATCHES),
}


def _network(given: Values, name: str) -> tuple[Values, list[str]]:
    """The model of the MedMNIST guide; what is not in it has the defaults here.

    >>> _network({"architecture": "vit", "variant": "vit_base", "patch_size": 32}, "model.yaml")[0]["model"]["backbone"]
    'vit_base_patch32_224'
    """
    _check(given, "", NETWORK, name)
    kind = _word(given, "architecture", {word: word for word in VARIANTS}, name)
    allowed = {one: one for one in VARIANTS[kind]}
    allowed |= {one.removeprefix(kind).lstrip("_"): one for one in VARIANTS[kind]} | {
        one.replace(kind, f"{kind}-"): one for one in VARIANTS[kind]
    }
    variant = _word({"variant": given.get("variant", VARIANTS[kind][0])}, "variant", allowed, name)
    backbone = f"tf_{variant}" if variant in ("efficientnet_b6", "efficientnet_b7") else variant
    if kind == "vit":
        patches = PATCHES[variant.removeprefix("vit_")]
        patch = given.get("patch_size", 16 if 16 in patches else patches[0])
        if patch not in patches:
            raise ConfigError(f"{name}: patch_size: got {patch}, allowed for {variant}: {', '.join(map(str, patches))}")
        backbone = f"{variant}_patch{patch}_224"
    elif "patch_size" in given:
        raise ConfigError(f"{name}: patch_size: a {kind} has no patches; leave it out")
    pretrained, dropout = given.get("pretrained", True), float(given.get("dropout_rate", 0))
    said = {
        "architecture": f"with variant: model.backbone {backbone}",
        "variant": f"model.backbone {backbone}, at its own size, mean and std",
        "pretrained": "model.pretrained, weights from timm's hub" if pretrained else "random weights",
        "num_classes": "not used: the number of classes is counted from the data",
        "dropout_rate": f"model.head kind linear, dropout {dropout:g}",
        "patch_size": f"model.backbone {backbone}",
    }
    lines = [f"{key} {_yaml(value)}: {said[key]}" for key, value in given.items()]
    lines.append("data, training and loss are not in this file: set data.path and data.source; the rest has its defaults")
    head = {"kind": "linear", "dropout": dropout}
    return {"model": {"backbone": backbone, "pretrained": pretrained, "head": head}}, lines


def _flat(values: Values, prefix: str = "") -> Values:
    flat: Values = {}
    for key, value in values.items():
        path = f"{prefix}.{key}".strip(".")
        flat |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return flat


def _check(values: Values, prefix: str, known: dict[str, type], name: str) -> None:
    """Refuse unknown keys and other types, once, where they enter."""
    sections = {key.rpartition(".")[0] for key in known} - {""}
    for key, value in values.items():
        path = f"{prefix}.{key}".strip(".")
        if path in sections:
            if not isinstance(value, dict):
                raise ConfigError(f"{name}: {path}: got {value!r}, must be a mapping; write its keys below it")
            _check(value, path, known, name)
        elif path not in known:
            best = closest(str(key), prefix, [*known, *sections])
            start = f"{prefix}." if prefix else ""
            beside = {k.removeprefix(start).split(".")[0] for k in known if k.startswith(start)}
            hint = f"; did you mean '{best}'?" if best else f"; known here: {', '.join(sorted(beside))}"
            raise ConfigError(f"{name}: unknown key '{path}'{hint}")
        else:
            wanted = known[path]
            fits = isinstance(value, (int, float) if wanted is float else wanted)
            if not fits or (isinstance(value, bool) and wanted is not bool):
                raise ConfigError(f"{name}: {path}: got {value!r}, must be {_TYPES[wanted]}")


_TYPES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _word(old: Values, key: str, allowed: dict[str, str], name: str) -> str:
    word = str(old[key]).lower()
    if word not in allowed:
        raise ConfigError(f"{name}: {key}: got '{old[key]}', allowed: {', '.join(allowed)}{nearest(word, list(allowed))}")
    return allowed[word]


def _model(old: Values, name: str) -> tuple[Values, dict[str, str]]:
    _word(old, "model.name", {"efficientnet_v2": "", "efficientnetv2": ""}, name)
    backbone = _word(old, "model.size", SIZES, name)
    kind = _word(old, "model.head_type", {"simple": "simple", "acrnn": "acrnn"}, name)
    head: Values = {"kind": kind} | ({"dropout": float(old["model.dropout_rate"])} if kind == "simple" else {})
    size = old.get("data.image_size", 224)
    strategy = "frozen" if old["model.freeze_backbone"] else "full"
    values = {
        "model": {
            "backbone": backbone,
            "pretrained": old["model.pretrained"],
            "head": head,
        },
        "train": {"strategy": {"kind": strategy}},
        "preprocess": {"kind": "squash", "size": size},
    }
    said = {
        "model.name": f"model.backbone {backbone}, at {size} px; mean and std are the backbone's own, not ImageNet's",
        "model.size": f"model.backbone {backbone} (timm's name of the pretrained weights)",
        "model.pretrained": "model.pretrained, ImageNet weights from timm's hub"
        if old["model.pretrained"]
        else "random weights",
        "model.head_type": f"model.head kind {kind}",
        "model.dropout_rate": f"model.head.dropout {old['model.dropout_rate']:g}"
        if kind == "simple"
        else "not used: the acrnn head as documented has no dropout",
        "model.freeze_backbone": f"train.strategy kind {strategy}",
        "model.num_classes": "not used: the number of classes is counted from the data",
        "data.image_size": f"preprocess.size {size}",
    }
    return values, said


def _training(old: Values, name: str) -> tuple[Values, dict[str, str]]:
    get: Callable[[str], Any] = lambda key: old[f"training.{key}"]  # noqa: E731
    seed = old.get("training.seed", old["seed"])
    mode = "fast" if get("fast_mode") else "deterministic"
    train: Values = {
        "batch_size": get("batch_size"),
        "epochs": get("epochs"),
        "optimizer": {"kind": "adamw", "lr": float(get("lr")), "weight_decay": float(get("weight_decay"))},
        "num_workers": get("num_workers"),
        "prefetch_factor": get("prefetch_factor"),
        "persistent_workers": get("persistent_workers"),
        "amp": get("use_amp"),
        "compile": get("use_torch_compile"),
        "mode": mode,
        "early_stopping": {"patience": get("early_stopping_patience")} if get("early_stopping_patience") else None,
        "monitor": "val_loss",
        "augment": {"policy": "standard"},
    }
    said = {
        "training.batch_size": f"train.batch_size {get('batch_size')}",
        "training.epochs": f"train.epochs {get('epochs')}",
        "training.lr": f"train.optimizer.lr {get('lr'):g}",
        "training.weight_decay": f"train.optimizer.weight_decay {get('weight_decay'):g}; decoupled (AdamW), not an L2 penalty",
        "training.num_workers": f"train.num_workers {get('num_workers')}, used where images stream (train.cache)",
        "training.prefetch_factor": f"train.prefetch_factor {get('prefetch_factor')}, used where images stream",
        "training.persistent_workers": f"train.persistent_workers {_yaml(get('persistent_workers'))}, used where images stream",
        "training.use_amp": f"train.amp {_yaml(get('use_amp'))}",
        "training.use_torch_compile": f"train.compile {_yaml(get('use_torch_compile'))}",
        "training.fast_mode": f"train.mode {mode}",
        "training.early_stopping_patience": "train.early_stopping "
        + (
            f"patience {get('early_stopping_patience')}, counted from the best epoch of the current restart cycle"
            if train["early_stopping"]
            else "off"
        ),
        "training.seed": f"seed {seed}",
        "seed": f"seed {seed}, of training and of the split",
    }
    for key, ours in (("gradient_accumulation_steps", "accumulate"), ("gradient_clip", "clip_norm")):
        if f"training.{key}" in old:
            train[ours] = get(key)
            said[f"training.{key}"] = f"train.{ours} {get(key):g}"
    return {"seed": seed, "train": train}, said


def _schedule(old: Values, name: str) -> tuple[Values, dict[str, str]]:
    prefix = "training.scheduler."
    kind = _word(old, f"{prefix}type", SCHEDULERS, name)
    taken = {
        "T_0": ("t_0", ("cosine_restarts",)),
        "T_mult": ("t_mult", ("cosine_restarts",)),
        "eta_min": ("eta_min", ("cosine_restarts", "cosine")),
        "warmup_pct": ("warmup", ("cosine_restarts", "cosine", "constant")),
        "warmup_epochs": ("warmup_epochs", ("cosine_restarts", "cosine", "constant")),
    }
    schedule: Values = {"kind": kind}
    said = {f"{prefix}type": f"train.schedule kind {kind}"}
    for key, (ours, kinds) in taken.items():
        if prefix + key not in old:
            continue
        if kind in kinds:
            schedule[ours] = old[prefix + key]
            said[prefix + key] = f"train.schedule.{ours} {old[prefix + key]:g}"
        else:
            said[prefix + key] = f"not used by schedule {kind}"
    return {"train": {"schedule": schedule}}, said


def _loss(old: Values, name: str) -> tuple[Values, dict[str, str]]:
    kind = _word(old, "loss.type", {word: word for word in ("cross_entropy", "focal", "label_smoothing")}, name)
    loss: Values = {"kind": kind}
    said = {"loss.type": f"train.loss kind {kind}"}
    if kind == "label_smoothing":
        loss |= {"smoothing": old["loss.label_smoothing"], "convention": "others"}
        said["loss.label_smoothing"] = f"train.loss.smoothing {old['loss.label_smoothing']:g}, eps/(C-1) on the other classes"
    else:
        said["loss.label_smoothing"] = f"not used by loss {kind}"
    for key in ("gamma", "focal_gamma", "alpha", "focal_alpha"):
        if f"loss.{key}" in old:
            ours = key.removeprefix("focal_")
            said[f"loss.{key}"] = f"train.loss.{ours} {old[f'loss.{key}']:g}" if kind == "focal" else f"not used by loss {kind}"
            loss |= {ours: old[f"loss.{key}"]} if kind == "focal" else {}
    return {"train": {"loss": loss}}, said


def _imbalance(old: Values, name: str) -> tuple[Values, dict[str, str]]:
    sampling = old["training.use_weighted_sampling"]
    weights = old.get("loss.use_class_weights", old.get("training.use_class_weights", True))
    kind = "sampling" if sampling else "weights" if weights else "none"
    alone = "; class weights beside it, the document's default, would correct twice and are off" if sampling else ""
    said = {"training.use_weighted_sampling": f"train.imbalance kind {kind}{alone if weights else ''}"}
    for key in ("loss.use_class_weights", "training.use_class_weights"):
        said[key] = f"train.imbalance kind {kind}" + (
            ": weighted sampling alone, both would correct twice" if sampling and weights else ""
        )
    return {"train": {"imbalance": {"kind": kind}}}, said


def _data(old: Values, name: str) -> tuple[Values, dict[str, str]]:
    val, test = float(old["data.val_size"]), float(old["data.test_size"])
    if not (val > 0 and test > 0 and val + test < 1):
        raise ConfigError(f"{name}: data.val_size {val:g} and data.test_size {test:g} must be above 0 and sum to less than 1")
    train = round(1 - val - test, 10)
    seed = old.get("data.seed", old.get("training.seed", old["seed"]))
    values: Values = {
        "data": {"source": {"kind": "ham10000"}},
        "split": {"fractions": {"train": train, "val": val, "test": test}, "seed": seed},
    }
    if "data.data_dir" in old:
        values["data"]["path"] = old["data.data_dir"]
    said = {
        "data.val_size": f"split.fractions val {val:g}, train {train:g}; no cal split: calibration is cross-fitted on val",
        "data.test_size": f"split.fractions test {test:g}",
        "data.lesion_aware": "always on: groups of lesion, patient and identical images never cross splits"
        if old["data.lesion_aware"]
        else "NOT FOLLOWED: a split that divides lesions leaks; groups of lesion and patient never cross splits",
        "data.data_dir": f"data.path {old.get('data.data_dir')}",
        "data.seed": f"split.seed {seed}",
    }
    return values, said
