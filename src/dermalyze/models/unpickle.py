"""The program in which `import-weights` opens a pickled checkpoint: the only file of dermalyze that may unpickle.

    python -P -m dermalyze.models.unpickle SOURCE FOLDER refuse|trust

It runs in a process of its own, so that what a file does while it is opened is done there; it leaves tensors as
safetensors, and a report as JSON, in FOLDER. The process that started it checks what it leaves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TENSORS_NAME, REPORT_NAME = "tensors.safetensors", "report.json"
NESTED = ("state_dict", "model_state_dict", "state_dict_ema", "model_ema", "model", "net", "network", "weights")
"""Keys under which training programs put the weights, in the order in which they are looked for."""


def tensors_of(value: Any) -> tuple[dict[str, Any], int]:
    """Named tensors of what was unpickled, and how many other entries there were.

    Raises:
        ValueError: it holds none.
    """
    import torch

    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    for _ in range(3):
        inner = next((value[key] for key in NESTED if isinstance(value, Mapping) and key in value), None)
        if isinstance(inner, torch.nn.Module):
            inner = inner.state_dict()
        if not isinstance(inner, Mapping):
            break
        value = inner
    if not isinstance(value, Mapping):
        raise ValueError(f"holds a {type(value).__name__}, not a table of named tensors")
    tensors = {name: tensor for name, tensor in value.items() if isinstance(name, str) and isinstance(tensor, torch.Tensor)}
    if not tensors:
        raise ValueError(f"holds no named tensor, but {', '.join(map(str, list(value)[:5]))}")
    return tensors, len(value) - len(tensors)


def load(source: Path, *, trust: bool) -> tuple[Any, bool]:
    """What a checkpoint holds, and whether code of the file was run: tensors and plain values first; all else with trust."""
    import torch

    try:
        return torch.load(source, map_location="cpu", weights_only=True), False
    except Exception:
        if not trust:
            raise
        return torch.load(source, map_location="cpu", weights_only=False), True


def main(source: Path, folder: Path, *, trust: bool) -> None:
    """Write tensors and report, or a report that says why not."""
    report: dict[str, Any]
    try:
        from safetensors.torch import save_file

        value, ran = load(source, trust=trust)
        tensors, others = tensors_of(value)
        plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, folder / TENSORS_NAME)
        report = {"others": others, "ran_code": ran}
    except Exception as error:
        report = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:1000]}
    (folder / REPORT_NAME).write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), trust=sys.argv[3] == "trust")
