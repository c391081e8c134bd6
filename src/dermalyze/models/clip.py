"""CLIP-type models: a tower for images and one for texts, in one space. The only file that imports open_clip.

Both files that make a model are what open_clip's hub holds: `open_clip_config.json`, which says the whole architecture, and
weights as safetensors. The vocabulary is CLIP's own, which open_clip brings along; nothing else is fetched.
"""

# Shapes: B images, T texts, H height, W width, D features.

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dermalyze.core.atomic import sha256_file, size_text
from dermalyze.core.machine import available_memory_bytes
from dermalyze.errors import ConfigError, MissingExtraError, ModelError, ResourceError, one_line
from dermalyze.models import torch_guard
from dermalyze.models.hub import hub_file
from dermalyze.models.weights import MAX_SIDECAR_BYTES, check_container, load_state

if TYPE_CHECKING:
    from types import ModuleType

CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
HUB = "hf-hub:"
REMEDY = f"give a local .safetensors file with its {CONFIG_FILE} beside it as weights"
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP, where a config has none
ELSEWHERE = {
    "hf_model_name": "a text tower from another hub",
    "hf_tokenizer_name": "a vocabulary from another hub",
    "multimodal_cfg": "a decoder of captions",
}
"""What a configuration may ask for that is not in its two files, or not a CLIP."""


class Clip:
    """A CLIP-type model in evaluation mode, fp32: images and texts to features of one space.

    Args:
        weights: a local .safetensors file with `open_clip_config.json` beside it, or `hf-hub:OWNER/NAME`.
        device: where it computes, as torch names it.

    Raises:
        MissingExtraError: open_clip is not installed.
        ModelError: a file is refused or cannot be reached, or asks for what is not in it.
        ResourceError: larger than the free memory.

    Attributes:
        size: (height, width) of its images, px; mean, std: of RGB in 0..1, that it expects.
        width: D.
        scale: 1 / temperature, learned with it.
        sha256: of the weight file.
    """

    def __init__(self, weights: str, *, device: str = "cpu") -> None:
        open_clip = _open_clip()
        path, config_path = files_of(weights)
        check_container(path)
        config = read_config(config_path)
        cfg = config["model_cfg"]
        free = available_memory_bytes()
        if free is not None and path.stat().st_size > free:
            raise ResourceError(
                f"{path.name}: {size_text(path.stat().st_size)} of weights, and {size_text(free)} of memory are free; "
                "choose a smaller model"
            )
        try:
            cfg["vision_cfg"]["timm_model_pretrained"] = False
            custom = bool(cfg.pop("custom_text", False))
            self._model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**cfg).float().eval()
            context = int(cfg["text_cfg"].get("context_length", 77))
            self._tokenizer = open_clip.SimpleTokenizer(
                context_length=context, **(cfg["text_cfg"].get("tokenizer_kwargs") or {})
            )
            edge = cfg["vision_cfg"].get("image_size", 224)
            height, width = (edge, edge) if isinstance(edge, int) else edge
            given = config.get("preprocess_cfg") or {}
            mean, std = (tuple(map(float, given.get(key, own))) for key, own in (("mean", MEAN), ("std", STD)))
            if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
                raise ValueError("mean and std must be three numbers, std above 0")
        except (TypeError, ValueError, LookupError, AttributeError, AssertionError, RuntimeError) as error:
            raise ModelError(f"{config_path.name}: no model can be built from it: {one_line(str(error))}; {REMEDY}") from error
        load_state(path, self._model)
        self._model.to(device)
        self._context, self._device = context, device
        self.size, self.mean, self.std = (int(height), int(width)), mean, std
        self.scale, self.width = float(self._model.logit_scale.detach().exp()), int(cfg["embed_dim"])
        self.sha256 = sha256_file(path)

    def __call__(self, images_B3HW: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, D) features of normalized images (B, 3, H, W), of any length."""
        with torch.inference_mode():
            found = self._model.encode_image(torch.from_numpy(images_B3HW).to(self._device))
        return np.asarray(found.cpu().numpy(), np.float32)

    def texts(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """(T, D) features of sentences, of any length.

        Raises:
            ConfigError: a sentence is longer than the model reads.
        """
        for sentence in sentences:
            if (tokens := len(self._tokenizer.encode(sentence)) + 2) > self._context:  # a start and an end are put round it
                raise ConfigError(f"prompt '{sentence[:40]}…' has {tokens} tokens; the model reads {self._context}; shorten it")
        with torch.inference_mode():
            found = self._model.encode_text(self._tokenizer(list(sentences)).to(self._device))
        return np.asarray(found.cpu().numpy(), np.float32)


def files_of(weights: str) -> tuple[Path, Path]:
    """The weight file and its configuration, from this disk or from the hub.

    Raises:
        ModelError: the hub cannot be reached, or the configuration is not there.
    """
    if weights.startswith(HUB):
        repository = weights.removeprefix(HUB)
        config, path = (hub_file(repository, name, key="weights", remedy=REMEDY) for name in (CONFIG_FILE, WEIGHTS_FILE))
        return path, config
    path = Path(weights)
    check_container(path)
    if not path.with_name(CONFIG_FILE).is_file():
        raise ModelError(f"{path.name}: {CONFIG_FILE}, which says how the model is built, is not beside it; put it there")
    return path, path.with_name(CONFIG_FILE)


def read_config(path: Path) -> dict[str, Any]:
    """An `open_clip_config.json` that asks for nothing but what is in its files.

    Raises:
        ModelError: not such a file, or it asks for more.
    """
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes")
        config: dict[str, Any] = json.loads(path.read_bytes())
        cfg = config["model_cfg"]
        towers = {**cfg["vision_cfg"], **cfg["text_cfg"], **cfg}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"{path.name}: no configuration of open_clip ({type(error).__name__}: {error}); {REMEDY}") from error
    if asked := [what for key, what in ELSEWHERE.items() if towers.get(key)]:
        raise ModelError(f"{path.name}: asks for {' and '.join(asked)}; choose a model with CLIP's own text tower")
    return config


def _open_clip() -> ModuleType:
    torch_guard.install()
    try:
        import open_clip
    except ModuleNotFoundError as error:
        raise MissingExtraError("zero-shot", "clip") from error
    module: ModuleType = open_clip
    return module
