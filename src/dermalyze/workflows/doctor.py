"""What this machine and this installation can do, each line with its remedy. Works without the `train` extra."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
import shutil
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from dermalyze.core.atomic import write_text
from dermalyze.core.machine import available_cores
from dermalyze.data.cache import cache_folder
from dermalyze.errors import ResourceError

State = Literal["good", "note", "blocks"]
GIB = 2**30
LEAST_FREE_GIB, FEW_FREE_GIB = 0.5, 5.0
LEAST_MEMORY_GIB, LITTLE_MEMORY_GIB = 0.5, 4.0
LITTLE_SHARED_MIB = 256
HUB_WAIT_S = 3.0
TRAIN_EXTRA = "pip install 'dermalyze[train]'"
TRAIN_PACKAGES = ("timm", "safetensors", "sklearn", "scipy", "pandas", "pyarrow", "matplotlib", "tensorboard", "onnx", "jinja2")


@dataclass(frozen=True)
class Check:
    """One line of the doctor.

    Attributes:
        name: what was looked at.
        state: "good", "note" (works, with this in mind) or "blocks" (no training like this).
        found: what there is.
        remedy: what to do; "" where it is good.
    """

    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class DoctorResult:
    """Every check, in a fixed order."""

    checks: tuple[Check, ...]

    @property
    def usable(self) -> bool:
        """Whether nothing blocks training."""
        return all(check.state != "blocks" for check in self.checks)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {"usable": self.usable, "checks": [vars(check) for check in self.checks]}

    def lines(self) -> list[str]:
        """Lines for a person: one per check, then the verdict."""
        width = max(len(check.name) for check in self.checks)
        told = [
            f"{check.state:<7}{check.name:<{width}}  {check.found}" + (f"; {check.remedy}" if check.remedy else "")
            for check in self.checks
        ]
        blocked = [check.name for check in self.checks if check.state == "blocks"]
        return [*told, "ready to train" if not blocked else f"training is blocked by: {', '.join(blocked)}"]


def doctor(folder: Path | str = ".") -> DoctorResult:
    """Look at Python, the torch and torchvision pair, packages, device, memory, disk, shared memory, permissions and the hub.

    Nothing is raised for what is found, and nothing is left behind; the hub is asked for 3 s at most and never blocks.

    Args:
        folder: where runs are to stand; the nearest folder above it that exists is looked at.
    """
    place = next(p for p in (Path(folder).absolute(), *Path(folder).absolute().parents) if p.is_dir())
    cache = next(p for p in (cache_folder().absolute(), *cache_folder().absolute().parents) if p.is_dir())
    checks = [python(), base_packages()]
    checks += [*torch_pair(), train_packages(), *devices(), threads(), memory()]
    checks += [disk("disk of the runs", place), disk("disk of the image cache", cache, "set DERMALYZE_CACHE to another disk")]
    checks += [writable("writing runs", place, "give write permission, or work in another folder")]
    checks += [writable("writing the image cache", cache, "give write permission, or set DERMALYZE_CACHE to another folder")]
    return DoctorResult((*checks, shared_memory(), hub()))


def python() -> Check:
    """The interpreter; an older one than 3.11 does not install dermalyze."""
    return Check("Python", "good", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def base_packages() -> Check:
    """What prediction needs."""
    names = ("dermalyze", "numpy", "pillow", "pydantic", "onnxruntime")
    found = {name: version_of(name) for name in names}
    missing = [name for name, version in found.items() if version is None]
    told = ", ".join(f"{name} {version or 'missing'}" for name, version in found.items())
    if missing:
        return Check("packages to predict", "blocks", told, "pip install --force-reinstall dermalyze")
    return Check("packages to predict", "good", told)


def torch_pair() -> list[Check]:
    """torch, and whether the torchvision beside it is of the same build; see models/torch_guard.py."""
    if version_of("torch") is None:
        return [Check("torch", "blocks", "not installed (predicting works without it)", TRAIN_EXTRA)]
    try:
        torch = importlib.import_module("torch")
    except Exception as error:  # a broken installation raises whatever its libraries raise
        return [Check("torch", "blocks", f"cannot be imported ({type(error).__name__})", f"install it again: {TRAIN_EXTRA}")]
    checks = [Check("torch", "good", str(torch.__version__))]
    try:
        state = importlib.import_module("dermalyze.models.torch_guard").install()
    except Exception as error:
        remedy = "install the torchvision that belongs to this torch, both from the same index"
        return [*checks, Check("torchvision", "blocks", f"cannot be imported ({type(error).__name__})", remedy)]
    version = version_of("torchvision") or ""
    if state == "absent":
        return [*checks, Check("torchvision", "blocks", "not installed, and timm needs it", TRAIN_EXTRA)]
    if state == "repaired":
        told = f"{version}, another build than torch (its operators do not load); fixed for dermalyze"
        return [*checks, Check("torchvision", "note", told, "for a matching pair, install both from the same index")]
    return [*checks, Check("torchvision", "good", f"{version}, loads beside this torch")]


def train_packages() -> Check:
    """The rest of the `train` extra, by looking and not by importing, except timm."""
    missing = [name for name in TRAIN_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return Check("packages to train", "blocks", f"missing: {', '.join(missing)}", TRAIN_EXTRA)
    return Check("packages to train", "good", f"timm {version_of('timm')} and {len(TRAIN_PACKAGES) - 1} more")


def devices() -> list[Check]:
    """What answers are computed on (the CPU, whatever else onnxruntime could take), and what torch can train on."""
    checks = []
    with contextlib.suppress(ImportError):
        onnxruntime = importlib.import_module("onnxruntime")
        checks.append(Check("devices to predict", "good", f"CPU, by onnxruntime {onnxruntime.__version__}"))
    torch = sys.modules.get("torch")
    if torch is None:
        return checks
    found = []
    with contextlib.suppress(Exception):  # a driver that does not fit its library
        for number in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(number)
            found.append(f"cuda: {properties.name}, {properties.total_memory / GIB:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    if found:
        return [*checks, Check("devices to train", "good", "; ".join(found))]
    remedy = "fine for small networks; for large ones use a machine with a GPU"
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        remedy = "there is an NVIDIA driver, but this torch is a CPU build: install a CUDA build to use it"
    return [*checks, Check("devices to train", "note", "cpu only", remedy)]


def threads() -> Check:
    """Cores, and a limit from outside."""
    cores, limit = available_cores(), os.environ.get("OMP_NUM_THREADS")
    told = f"{cores} of {os.cpu_count()} cores" + (f", OMP_NUM_THREADS={limit}" if limit else "")
    if limit and limit.isdigit() and int(limit) < cores:
        return Check("threads", "note", told, "train.threads sets the number for training; the variable also limits the rest")
    return Check("threads", "good", told)


def memory() -> Check:
    """Memory that can still be had, within a container's limit."""
    free, total = free_memory()
    if free is None:
        return Check("memory", "note", "unknown on this system", "training says what it needs when it runs short")
    told = f"{free / GIB:.1f} GiB free" + (f" of {total / GIB:.1f}" if total else "")
    if free < LEAST_MEMORY_GIB * GIB:
        return Check("memory", "blocks", told, "close other programs or raise the container's limit")
    if free < LITTLE_MEMORY_GIB * GIB:
        return Check("memory", "note", told, "keep the network, the images and train.batch_size small")
    return Check("memory", "good", told)


def free_memory() -> tuple[int | None, int | None]:
    """Bytes (free, total), the smaller of the machine's and the control group's; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        table = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free, total = table["MemAvailable"], table["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return None, None
    with contextlib.suppress(OSError, ValueError):  # "max", or no control group
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        free, total = min(free, limit - used), min(total, limit)
    return free, total


def disk(name: str, place: Path, remedy: str = "free space, or work on another disk") -> Check:
    """Free space of a folder's disk."""
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        return Check(name, "blocks", f"cannot be read ({error.strerror})", remedy)
    told = f"{usage.free / GIB:.1f} GiB free"
    if usage.free < LEAST_FREE_GIB * GIB:
        return Check(name, "blocks", told, remedy)
    return Check(name, "good", told) if usage.free >= FEW_FREE_GIB * GIB else Check(name, "note", told, remedy)


def writable(name: str, place: Path, remedy: str) -> Check:
    """A file written, flushed and removed again."""
    trial = place / f".dermalyze-doctor-{os.getpid()}"
    try:
        write_text(trial, "ok")
        trial.unlink()
    except (ResourceError, OSError):
        return Check(name, "blocks", "the folder cannot be written", remedy)
    return Check(name, "good", "the folder can be written")


def shared_memory() -> Check:
    """What worker processes pass images through."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Check("shared memory", "good", "not used on this system")
    free = shutil.disk_usage(place).free
    told = f"{free / 2**20:.0f} MiB free"
    if free < LITTLE_SHARED_MIB * 2**20:
        return Check("shared memory", "note", told, "give the container more (--shm-size=1g), or set train.num_workers=0")
    return Check("shared memory", "good", told)


def hub(wait_s: float = HUB_WAIT_S) -> Check:
    """Whether timm's named weights could be fetched; in a thread: looking up a name has no time limit of its own."""
    remedy = "pretrained: true fetches weights there; without it name a file: model.weights=FILE.safetensors"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Check("weights hub", "note", "not asked (HF_HUB_OFFLINE is set)", remedy)
    address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    reached: list[bool] = []
    asking = threading.Thread(target=lambda: reached.append(answers(address, wait_s)), daemon=True)
    asking.start()
    asking.join(wait_s + 0.5)
    if reached == [True]:
        return Check("weights hub", "good", "reachable")
    return Check("weights hub", "note", "not reachable", remedy)


def answers(address: str, wait_s: float) -> bool:
    """Whether a server answers at all, be it with a refusal."""
    if not address.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=wait_s):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def version_of(name: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
