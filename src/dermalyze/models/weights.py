"""Weight files: safetensors only, checked before anything is loaded. Nothing is ever unpickled here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dermalyze.config.model import ModelSpec
from dermalyze.core import atomic
from dermalyze.errors import ModelError, ResourceError

MAX_HEADER_BYTES = 16 * 2**20  # a network of 5,000 tensors needs about 0.5 MiB
MAX_SIDECAR_BYTES = 2**20
HARMLESS_KWARGS = frozenset(  # change training, not what a loaded tensor means
    {"drop_rate", "drop_path_rate", "drop_block_rate", "proj_drop_rate", "attn_drop_rate", "pos_drop_rate", "bn_momentum"}
)
_PROTOCOLS = (b"\x02", b"\x03", b"\x04", b"\x05")  # of pickle
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Sidecar:
    """What the `.json` beside a weight file says.

    Attributes:
        name: of the sidecar, for messages.
        sha256: of the weight file.
        backbone: timm's name.
        kwargs: what timm.create_model needs beside it (without num_classes).
        size: (height, width), px.
        mean, std: of RGB in 0..1.
    """

    name: str
    sha256: str
    backbone: str
    kwargs: dict[str, Any]
    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def check(self, spec: ModelSpec) -> None:
        """Refuse a spec that would build another network: a strict load alone does not see padding or epsilon.

        Raises:
            ModelError: with the lines to write.
        """
        if spec.backbone.partition(".")[0] != self.backbone.partition(".")[0]:
            raise ModelError(
                f"{self.name}: the weights are of {self.backbone}, model.backbone is {spec.backbone}; "
                f"write model.backbone: {self.backbone}"
            )
        wrong = [key for key, value in self.kwargs.items() if key not in spec.kwargs or spec.kwargs[key] != value]
        extra = [key for key in spec.kwargs if key not in self.kwargs and key not in HARMLESS_KWARGS]
        if wrong or extra:
            found = json.dumps(spec.kwargs, default=str)
            needed = ", ".join(f"{key}: {_yaml(value)}" for key, value in self.kwargs.items())
            problem = f"need {', '.join(wrong)}" if wrong else f"were not made with {', '.join(extra)}"
            raise ModelError(f"{self.name}: the weights {problem}; found kwargs {found}; write model.kwargs: {{{needed}}}")


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def read_sidecar(weights: Path) -> Sidecar:
    """Read and check `weights` with its suffix replaced by `.json`.

    Raises:
        ModelError: missing, not JSON, a key missing or of a wrong kind, or about another file; or `weights` is missing or
            no safetensors file (a pickle has no sidecar, and that is not what its owner should hear).
    """
    check_container(weights)
    path = weights.with_suffix(".json")
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise ModelError(f"{path.name}: {path.stat().st_size} bytes; a sidecar has at most {MAX_SIDECAR_BYTES}")
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{weights.name}: its sidecar {path.name} is not beside it; put it there") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path.name}: not a readable JSON sidecar: {error}; get the file again") from error
    try:
        if values["file"] != weights.name:
            raise ModelError(f"{path.name}: is about {values['file']!r}, not {weights.name}; keep the two names together")
        channels, height, width = (int(edge) for edge in values["input_size"])
        mean, std = _triple(values["mean"]), _triple(values["std"])
        kwargs = {str(key): value for key, value in dict(values["create_kwargs"]).items() if key != "num_classes"}
        sha256, backbone = str(values["sha256"]).lower(), str(values["create_name"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{path.name}: key missing or wrong ({type(error).__name__}: {error}); "
            "file, sha256, create_name, create_kwargs, input_size, mean, std are needed"
        ) from error
    if re.fullmatch("[0-9a-f]{64}", sha256) is None:
        raise ModelError(f"{path.name}: sha256 is not 64 hexadecimal digits; get the sidecar again")
    if channels != 3 or min(height, width) < 1 or min(std) <= 0 or not all(map(math.isfinite, (*mean, *std))):
        raise ModelError(f"{path.name}: input_size, mean or std make no sense; 3 channels, finite, std above 0")
    return Sidecar(path.name, sha256, backbone, kwargs, (height, width), mean, std)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def load_backbone_weights(path: Path, net: nn.Module, spec: ModelSpec) -> None:
    """Load a local weight file into a backbone, after its sidecar, hash, names, shapes, types and values were checked.

    Raises:
        ModelError: the sidecar or the file is refused; `net` is unchanged.
    """
    sidecar = read_sidecar(path)
    sidecar.check(spec)
    load_state(path, net, expected_sha256=sidecar.sha256)


def load_state(path: Path, module: nn.Module, *, expected_sha256: str | None = None) -> None:
    """Load a safetensors file into a module: every tensor, nothing else, finite numbers only.

    Args:
        path: the file.
        module: takes the tensors; unchanged if the file is refused.
        expected_sha256: of the file; finds what no other check can, one flipped bit in a weight.

    Raises:
        ModelError: missing, not safetensors (a pickle is recognised and not loaded), damaged, another hash, other names,
            shapes or types, NaN or infinite numbers.
    """
    module.load_state_dict(read_tensors(path, like=module.state_dict(), expected_sha256=expected_sha256), strict=True)


def read_tensors(
    path: Path, *, like: Mapping[str, Tensor] | None = None, expected_sha256: str | None = None
) -> dict[str, Tensor]:
    """Read a safetensors file.

    Args:
        path: the file.
        like: names, shapes and types to find, no more and no less; None takes what is there.
        expected_sha256: of the file.

    Returns:
        Tensors on the CPU.

    Raises:
        ModelError: see `load_state`.
    """
    check_container(path)
    if expected_sha256 is not None and atomic.sha256_file(path) != expected_sha256:
        raise ModelError(
            f"{path.name}: SHA-256 is not the recorded {expected_sha256[:12]}…; the file was changed; get it again"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no mapping
            if like is not None:
                _check_layout(path.name, {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in found.items()}, like)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path.name}: damaged safetensors file: {error}; get it again") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path.name}: tensor {name} holds NaN or infinite numbers; get the file again or train again")
    return tensors


def check_container(path: Path) -> None:
    """Refuse by its first bytes a file that is no safetensors, before any library opens it.

    Raises:
        ModelError: missing, too short, a pickle or archive, or a header that cannot be.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise ModelError(f"{path.name}: is not a file; give a .safetensors file")
        with path.open("rb") as stream:
            head = stream.read(9)
    except FileNotFoundError:
        raise ModelError(f"{path.name}: no such weight file; check the path") from None
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}; check path and permission") from error
    length = int.from_bytes(head[:8], "little")
    if len(head) == 9 and head[8:] == b"{" and 8 + length <= size and length <= MAX_HEADER_BYTES:
        return
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or (head[:1] == b"\x80" and head[1:2] in _PROTOCOLS):
        raise ModelError(
            f"{path.name}: a pickle or zip archive (as torch.save writes), which can run code; not loaded; "
            f"convert a file you trust: dermalyze import-weights {path.name} OUT.safetensors"
        )
    if len(head) == 9 and head[8:] == b"{":
        raise ModelError(f"{path.name}: header of {length} bytes in a file of {size}; truncated or forged; get it again")
    raise ModelError(
        f"{path.name}: not a safetensors file; not loaded; "
        f"convert a checkpoint you trust: dermalyze import-weights {path.name} OUT.safetensors"
    )


def _check_layout(name: str, found: Mapping[str, tuple[str, tuple[int, ...]]], like: Mapping[str, Tensor]) -> None:
    for keys, what in ((like.keys() - found.keys(), "misses"), (found.keys() - like.keys(), "holds unknown")):
        if keys:
            some = ", ".join(sorted(keys)[:3]) + (", …" if len(keys) > 3 else "")
            raise ModelError(
                f"{name}: {what} {len(keys)} tensor(s) ({some}) for this network; check model.backbone and model.head"
            )
    for key, tensor in like.items():
        wanted = (_DTYPES[tensor.dtype], tuple(tensor.shape))
        if found[key] != wanted:
            raise ModelError(f"{name}: tensor {key} is {_layout(found[key])}, not {_layout(wanted)}; check model and kwargs")


def _layout(value: tuple[str, tuple[int, ...]]) -> str:
    return f"{value[0]} {'x'.join(map(str, value[1])) or 'scalar'}"


def save_state(path: Path, state: nn.Module | Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors, durably and all at once; the same tensors give the same bytes.

    Returns:
        SHA-256 of the file.

    Raises:
        ResourceError: no space (with what is needed), no permission, or a failing disk; what was there stays.
    """
    tensors = state.state_dict() if isinstance(state, nn.Module) else state
    data = save({name: tensors[name].detach().cpu().clone(memory_format=torch.contiguous_format) for name in sorted(tensors)})
    try:
        atomic.write_bytes(path, data)
    except ResourceError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in atomic.FULL:
            raise ResourceError(f"{error} ({atomic.size_text(len(data))} are needed)") from error
        raise
    return atomic.sha256_bytes(data)
