"""A small CLIP-type model of random weights, as its two files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
}


def save_clip(folder: Path) -> Path:
    """Write weights and configuration; the path of the weights."""
    from dermalyze.models import torch_guard

    torch_guard.install()
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.CLIP(**json.loads(json.dumps(CONFIG["model_cfg"])))
    with torch.no_grad():  # an untrained text tower says nearly the same of all words
        model.text_projection.mul_(100)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "tiny_clip.safetensors")
    return folder / "tiny_clip.safetensors"
