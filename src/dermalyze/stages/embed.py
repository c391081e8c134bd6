"""Store features of every image by a pretrained network that has seen none of them."""

# Shapes: N images, D features.

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.model import ModelSpec
from dermalyze.config.zero_shot import ZeroShotSpec, load_zero_shot
from dermalyze.core.atomic import sha256_file
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.core.runtime import applied, choose_runtime
from dermalyze.data.manifest import read_classes
from dermalyze.data.pixels import read_batches
from dermalyze.data.samples import Samples
from dermalyze.data.splitting import read_division
from dermalyze.data.store import ImageStore
from dermalyze.errors import ModelError, UsageError
from dermalyze.imaging.decode import normalize
from dermalyze.imaging.modalities import modality_of
from dermalyze.imaging.samples import IMAGE, size_of
from dermalyze.models.clip import Clip
from dermalyze.models.embedding import Embedder
from dermalyze.models.weights import read_sidecar
from dermalyze.scoring.features.store import OWN, read_stored, write_features
from dermalyze.scoring.features.zero_shot import directions
from dermalyze.tasks.base import TASKS


@dataclass(frozen=True)
class EmbedResult:
    """What was stored.

    Attributes:
        name: of the features, for `plot_embeddings` and `linear_probe`.
        images: how many.
        width: features of each.
        size: (height, width) of the network's input, px.
        seconds: time spent.
    """

    name: str
    images: int
    width: int
    size: tuple[int, int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**asdict(self), "size": list(self.size)}

    def lines(self) -> list[str]:
        """Lines for a person."""
        return [
            f"{self.images} images, {self.width} features each, by {self.name} at {self.size[0]} x {self.size[1]} px; "
            f"{self.seconds:.0f} s",
            f"use them with: --features {self.name}",
        ]


def embed(
    run: Run,
    spec: ExperimentSpec,
    *,
    backbone: str | None = None,
    weights: Path | None = None,
    clip: Path | None = None,
) -> EmbedResult:
    """Features of every image of the split, under the backbone's name; those of the run's own network `score` has stored.

    Without `backbone` and `weights` it is the network that the experiment starts from, before any training.

    Args:
        run: prepared and split.
        spec: `data`, `preprocess.kind` and, without the arguments, `model` are used.
        backbone: a timm name, with the weights of its hub; with `weights`, only to be compared with the file's own.
        weights: a local .safetensors file of a backbone with its .json sidecar, which names the network.
        clip: a YAML file of a CLIP-type model and prompts of the classes, instead of both: `linear_probe` then answers
            zero-shot too. Where its features are stored already, only the prompts are taken anew.

    Raises:
        UsageError: no pretrained weights are named anywhere, `clip` of a task without zero-shot, or nothing has been split.
        ConfigError: unknown backbone; a class without a prompt.
        DataError: an image is gone or changed.
        ModelError: weights are refused or cannot be reached; NaN.
    """
    run.require_writable()
    if clip is not None and (backbone is not None or weights is not None):
        raise UsageError("--clip names its weights itself; leave out --backbone and --weights")
    if clip is not None:
        TASKS[spec.task.kind].require("zero_shot", what="embed --clip")
    asked = load_zero_shot(clip) if clip is not None else None
    if asked is not None and clip is not None:
        asked.check_classes(read_classes(run), clip.name)
    model = frozen_spec(spec.model, backbone, weights) if asked is None else None
    name = asked.name if asked is not None else re.sub(r"[^\w.-]+", "_", model.backbone if model is not None else "")
    if name == OWN:  # no network is called so; the name is taken
        raise UsageError(f"{name}: this name stands for the run's own features; choose another one")
    frame, _ = read_division(run)
    runtime = choose_runtime(
        device=spec.train.device, threads=spec.train.threads, amp=False, channels_last=False, deterministic=True
    )
    started = time.monotonic()
    with applied(runtime):
        network, meta = opened(model, asked, runtime.device)
        whole = spec.preprocess.model_copy(update={"size": None, "mean": None, "std": None})  # the network's own
        preprocessing = modality_of(spec.data).resolve(whole, size=network.size, mean=network.mean, std=network.std)
        meta |= {"preprocessing": preprocessing.as_dict(), "manifest_sha256": run.manifest_hash()}
        ids = frame["image_id"].astype(str).tolist()
        values = None
        if asked is not None and isinstance(network, Clip):
            spoken = asked_in_words(network, asked, read_classes(run))
            values = stored_already(run.features_path(name), ids, meta)
            meta["zero_shot"] = spoken
        if values is None:
            say(f"embed: {len(frame)} images by {meta['backbone']} at {preprocessing.height} x {preprocessing.width} px")
            samples = Samples.of(ImageStore.open(spec.data), frame, preprocessing, (preprocessing.image,))
            batches = read_batches(samples, size=spec.inference.batch_size, workers=spec.data.workers)
            found = []
            with progress("embed", len(frame), cost=True) as advance:
                for batch in batches:
                    found.append(network(normalize(batch[IMAGE], preprocessing)))
                    advance(size_of(batch))
            values = np.concatenate(found)
        else:
            say(f"embed: the {len(frame)} images are stored already; the prompts are taken anew")
    write_features(run.features_path(name), ids, values, meta)
    return EmbedResult(
        name, len(frame), values.shape[1], (preprocessing.height, preprocessing.width), time.monotonic() - started
    )


def opened(model: ModelSpec | None, asked: ZeroShotSpec | None, device: str) -> tuple[Clip | Embedder, dict[str, Any]]:
    """The network that gives the features, and what is written of it."""
    if model is not None:
        file_hash = sha256_file(Path(model.weights)) if model.weights is not None else None
        meta = {"backbone": model.backbone, "kwargs": model.kwargs, "weights_sha256": file_hash}
        return Embedder(model, device=device), meta
    assert asked is not None, "one of the two is there"
    clip = Clip(asked.weights, device=device)
    return clip, {"backbone": asked.name, "weights_sha256": clip.sha256}


def asked_in_words(network: Clip, asked: ZeroShotSpec, classes: list[str]) -> dict[str, Any]:
    """What zero-shot needs beside the images' features, JSON-ready: a direction a class, the scale, and the words."""
    found = directions([network.texts(asked.sentences(label)) for label in classes])
    return {
        "classes": classes,
        "templates": list(asked.templates),
        "prompts": {label: list(asked.prompts[label]) for label in classes},
        "directions": found.tolist(),
        "scale": network.scale,
    }


def stored_already(path: Path, ids: list[str], meta: dict[str, Any]) -> NDArray[np.float32] | None:
    """The features that are there, if they are whole and of the same weights, preprocessing and images."""
    if not path.exists():
        return None
    try:
        there, values, old = read_stored(path)
    except ModelError:
        return None
    return values if there == ids and all(old.get(key) == value for key, value in meta.items()) else None


def frozen_spec(own: ModelSpec, backbone: str | None, weights: Path | None) -> ModelSpec:
    """The network that a person names, or else the one that the experiment starts from.

    Raises:
        UsageError: neither has pretrained weights.
        ModelError: the weight file or its sidecar is refused.
    """
    if weights is not None:
        sidecar = read_sidecar(weights)
        return ModelSpec(backbone=backbone or sidecar.backbone, kwargs=sidecar.kwargs, weights=str(weights))
    if backbone is not None:
        return ModelSpec(backbone=backbone, pretrained=True)
    if own.weights is None and not own.pretrained:
        raise UsageError(
            "the experiment starts from random weights, and the run's own features are stored by score already; name another "
            "network: --backbone NAME (from the hub) or --weights FILE.safetensors"
        )
    return own
