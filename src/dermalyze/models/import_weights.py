"""A pickled checkpoint that a person trusts, turned into a safetensors file: the only command that unpickles anything."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dermalyze.core.atomic import resource_errors
from dermalyze.core.run import read_json
from dermalyze.errors import ModelError, UsageError
from dermalyze.models.unpickle import REPORT_NAME, TENSORS_NAME
from dermalyze.models.weights import read_tensors, save_state

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.")
"""What training programs put before every name."""
SHOWN = 4  # tensors that are named to a person


@dataclass(frozen=True)
class ImportResult:
    """What was taken out of a checkpoint.

    Attributes:
        out: the safetensors file.
        sha256: of it.
        tensors: how many; parameters: numbers in them.
        prefix: what was taken off every name; others: entries that are no tensors and were left out.
        ran_code: whether the file could only be read by running what it says (`trust`).
        shapes: name to shape, of the first and last ones.
    """

    out: Path
    sha256: str
    tensors: int
    parameters: int
    prefix: str
    others: int
    ran_code: bool
    shapes: dict[str, list[int]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {**self.__dict__, "out": str(self.out)}

    def lines(self) -> list[str]:
        """Lines for a person."""
        taken = f"{self.tensors} tensors, {self.parameters:,} numbers, to {self.out}"
        notes = [f"'{self.prefix}' taken off every name"] if self.prefix else []
        notes += [f"{self.others} entries that are no tensors left out"] if self.others else []
        notes += ["the file's own code was run, as --trust allows"] if self.ran_code else []
        shapes = [f"  {name}  {'x'.join(map(str, shape)) or 'a number'}" for name, shape in self.shapes.items()]
        return [
            "; ".join([taken, *notes]),
            *shapes,
            f"to train from it write {self.out.with_suffix('.json').name} beside it (file, sha256, create_name, create_kwargs, "
            f"input_size, mean, std) and name it in model.weights; its sha256 is {self.sha256}",
        ]


def import_weights(source: str | Path, out: str | Path, *, trust: bool = False) -> ImportResult:
    """Take the tensors out of a checkpoint of torch.save, in a process of its own.

    Args:
        source: a zip or an older pickle, as torch.save writes.
        out: the safetensors file to make; it must not be there yet.
        trust: where the file holds more than tensors and plain values, unpickle it whole. That runs whatever code it names,
            with all that you may do: only for a file that you made, or whose maker you trust as you trust their programs.

    Raises:
        UsageError: `out` is there, or is no .safetensors.
        ModelError: no such file, no checkpoint, one that only running its code would open, or one without finite named tensors.
        ResourceError: `out` can't be written.

    Example:
        import_weights("resnet18.pth", "resnet18.safetensors")
    """
    source, out = Path(source), Path(out)
    if out.suffix != ".safetensors":
        raise UsageError(f"{out.name}: name the file to make *.safetensors")
    if out.exists():
        raise UsageError(f"{out.name}: is there already; name another file, or remove it")
    check_checkpoint(source)
    with resource_errors(out.name):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".import-", dir=out.parent))
    try:
        report = _opened(source, folder, trust)
        tensors = read_tensors(folder / TENSORS_NAME)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    prefix = common_prefix(tensors)
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    sha256 = save_state(out, named)
    first = [*sorted(named)]
    shown = first if len(first) <= SHOWN else [*first[: SHOWN // 2], *first[-SHOWN // 2 :]]
    return ImportResult(
        out, sha256, len(named), sum(tensor.numel() for tensor in named.values()), prefix, int(report["others"]),
        bool(report["ran_code"]), {name: list(named[name].shape) for name in shown},
    )  # fmt: skip


def common_prefix(names: Iterable[str]) -> str:
    """What `PREFIXES` stand before every name, together.

    >>> common_prefix(["module.model.conv.weight", "module.model.conv.bias"]), common_prefix(["conv.weight"])
    ('module.model.', '')
    """
    names, found = list(names), ""
    while True:
        rest = [name.removeprefix(found) for name in names]
        more = next((one for one in PREFIXES if all(name.startswith(one) and name != one for name in rest)), None)
        if more is None:
            return found
        found += more


def check_checkpoint(path: Path) -> None:
    """Refuse by its bytes what torch.save does not write, before anything opens it.

    Raises:
        ModelError: missing, safetensors already, a damaged or packed archive, or something else.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except FileNotFoundError:
        raise ModelError(f"{path.name}: no such file; check the path") from None
    except OSError as error:
        raise ModelError(f"{path.name}: cannot be read: {error.strerror}; check path and permission") from error
    if head[8:] == b"{":
        raise ModelError(f"{path.name}: is a safetensors file already; use it as it is")
    if head[:2] == b"PK":
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
                bad = (
                    archive.testzip()
                    if all(m.compress_type == zipfile.ZIP_STORED and not m.flag_bits & 1 for m in members)
                    else ""
                )
        except (zipfile.BadZipFile, NotImplementedError, UnicodeError, OSError, EOFError, RuntimeError) as error:
            raise ModelError(f"{path.name}: a damaged zip archive ({error}); get the file again") from error
        if bad is not None:
            raise ModelError(
                f"{path.name}: a damaged, packed or encrypted zip archive; torch.save writes plain ones; get it again"
            )
        if not any(re.fullmatch(r"[^/]+/data\.pkl", member.filename) for member in members):
            raise ModelError(f"{path.name}: a zip archive that torch.save did not write (no data.pkl); unpack it first")
    elif not (head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        raise ModelError(f"{path.name}: no checkpoint as torch.save writes it; give a .pt, .pth or .bin file")


def _opened(source: Path, folder: Path, trust: bool) -> dict[str, Any]:
    """The report of the process that opens the file.

    Raises:
        ModelError: with its reason.
    """
    program = [sys.executable, "-P", "-m", "dermalyze.models.unpickle", str(source.absolute()), str(folder)]
    with resource_errors(folder.name):
        done = subprocess.run([*program, "trust" if trust else "refuse"], capture_output=True, check=False, env=_environment())
    report: dict[str, Any] = {}
    with contextlib.suppress(ModelError, OSError):
        report = read_json(folder / REPORT_NAME) if (folder / REPORT_NAME).exists() else {}
    if "error" in report:
        said = str(report["error"])
        if "weights_only" in said or "WeightsUnpickler" in said or "Unsupported" in said:
            reason = re.sub(r".*WeightsUnpickler error: ", "", said).partition(". ")[0][:160]
            raise ModelError(
                f"{source.name}: holds more than tensors and plain values ({reason}); nothing of it was run; only if you trust "
                "its maker as you trust their programs: --trust"
            )
        raise ModelError(f"{source.name}: {said[:240]}; give a checkpoint that holds named tensors")
    if done.returncode != 0 or not {"others", "ran_code"} <= report.keys() or not (folder / TENSORS_NAME).is_file():
        raise ModelError(
            f"{source.name}: the process that opened it ended with {done.returncode} and left nothing; not imported"
        )
    return report


def _environment() -> dict[str, str]:
    """What Python and torch need, and no more: a file that runs code is not handed the keys of its reader."""
    kept = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "OMP_NUM_THREADS", "LANG", "LC_ALL")
    return {name: os.environ[name] for name in kept if name in os.environ}
