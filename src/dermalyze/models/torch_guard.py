"""One guard for one fault: a CUDA build of torchvision beside a CPU build of torch.

The package registry's torchvision wheel is a CUDA build. Beside CPU torch its C++ operators do not load, and its import
stops at `operator torchvision::nms does not exist`, which takes timm, segmentation-models-pytorch and torchmetrics with it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Literal

TorchvisionState = Literal["absent", "matching", "repaired"]

_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def install() -> TorchvisionState:
    """Make `import torchvision` succeed, or leave it as it is. Call before importing timm; calling again costs nothing.

    Only where the import fails with the one known message, the half-loaded modules are dropped, the two missing operators
    are declared (without a body: calling them still fails) and torchvision is imported again.

    Returns:
        "absent": not installed; "matching": imports as it is (also after an earlier repair); "repaired": imports now.

    Raises:
        Exception: whatever else torchvision's import raises, unchanged.
    """
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        return "absent"
    except RuntimeError as error:
        if "operator torchvision::" not in str(error) or "does not exist" not in str(error):
            raise
    else:
        return "matching"
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch

    for operator, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", schema)
    importlib.import_module("torchvision")
    return "repaired"
