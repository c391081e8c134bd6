"""Store features of every image by a pretrained network that has seen none of them."""

# Shapes: N images, D features.

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermalyze.config.experiment import ExperimentSpec
from dermalyze.config.model import ModelSpec
from dermalyze.core.atomic import sha256_file
from dermalyze.core.errors import UsageError
from dermalyze.core.progress import progress, say
from dermalyze.core.run import Run
from dermalyze.core.runtime import applied, choose_runtime
from dermalyze.data.external import read_batches
from dermalyze.data.features import OWN, write_features
from dermalyze.data.images import Preprocessing, normalise
from dermalyze.data.splitting import read_division
from dermalyze.data.store import ImageStore
from dermalyze.model.embedding import Embedder
from dermalyze.model.weights import read_sidecar


@dataclass(frozen=True)
class EmbedResult:
    """What was stored.

    Attributes:
        name: by which `map` and `frozen` take the features.
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


def embed(run: Run, spec: ExperimentSpec, *, backbone: str | None = None, weights: Path | None = None) -> EmbedResult:
    """Features of every image of the split, under the backbone's name; those of the run's own network `probe` has stored.

    Without `backbone` and `weights` it is the network that the experiment starts from, before any training.

    Args:
        run: prepared and split.
        spec: `data`, `preprocess.kind` and, without the arguments, `model` are used.
        backbone: a timm name, with the weights of its hub; with `weights`, only to be compared with the file's own.
        weights: a local .safetensors file of a backbone with its .json sidecar, which names the network.

    Raises:
        UsageError: no pretrained weights are named anywhere, or nothing has been split.
        ConfigError: unknown backbone.
        DataError: an image is gone or changed.
        ModelError: weights are refused or cannot be reached; NaN.
    """
    run.probe_write()
    model = frozen_spec(spec.model, backbone, weights)
    name = re.sub(r"[^\w.-]+", "_", model.backbone)
    if name == OWN:  # no network is called so; the name is taken
        raise UsageError(f"--backbone {backbone}: this name stands for the run's own features; choose another network")
    frame, _ = read_division(run)
    runtime = choose_runtime(
        device=spec.train.device, threads=spec.train.threads, amp=False, channels_last=False, deterministic=True
    )
    started = time.monotonic()
    found = []
    with applied(runtime):
        embedder = Embedder(model, device=runtime.device)
        whole = spec.preprocess.model_copy(update={"size": None, "mean": None, "std": None})  # the network's own
        preprocessing = Preprocessing.resolve(whole, size=embedder.size, mean=embedder.mean, std=embedder.std)
        say(f"embed: {len(frame)} images by {model.backbone} at {preprocessing.height} x {preprocessing.width} px")
        batches = read_batches(
            ImageStore.open(spec.data), frame, preprocessing, size=spec.inference.batch_size, workers=spec.data.workers
        )
        with progress("embed", len(frame), cost=True) as advance:
            for batch in batches:
                found.append(embedder(normalise(batch, preprocessing)))
                advance(len(batch))
    values = np.concatenate(found)
    meta = {
        "backbone": model.backbone,
        "kwargs": model.kwargs,
        "weights_sha256": sha256_file(Path(model.weights)) if model.weights is not None else None,
        "preprocessing": preprocessing.as_dict(),
        "manifest_sha256": run.manifest_hash(),
    }
    write_features(run.features_path(name), frame["image_id"].astype(str).tolist(), values, meta)
    return EmbedResult(
        name, len(frame), values.shape[1], (preprocessing.height, preprocessing.width), time.monotonic() - started
    )


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
            "the experiment starts from random weights, and the run's own features are stored by probe already; name another "
            "network: --backbone NAME (from the hub) or --weights FILE.safetensors"
        )
    return own
