"""What can be made again: resumable states of finished trainings, logs, leftovers, image caches of no run."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dermalyze.config.columns import OPTIONAL_IMAGES
from dermalyze.core.atomic import sha256_file
from dermalyze.core.progress import say
from dermalyze.core.run import Run, read_json
from dermalyze.data.cache import cache_folder, cache_key
from dermalyze.errors import DermalyzeError

MIB = 2**20
SETTLED_S = 3600  # a cache that was touched within this time may belong to a run that is about to begin


@dataclass(frozen=True)
class Rubbish:
    """Something that can be made again: of which run ("" for the image cache), what, which paths, how many bytes."""

    run: str
    what: str
    paths: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        """Bytes that deleting it frees."""
        return sum(size_of(path) for path in self.paths)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count as links."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(child.lstat().st_size for child in path.rglob("*") if child.is_symlink() or not child.is_dir())


def inner_runs(run: Run) -> list[Run]:
    """Runs within a run: the two of a leak bill, the members of an ensemble."""
    folders = [child for place in (run.leak_bill_dir, run.members_dir) if place.is_dir() for child in sorted(place.iterdir())]
    return [Run(folder) for folder in folders if Run(folder).config_path.is_file()]


def rubbish_of(run: Run) -> list[Rubbish]:
    """What of one run can be made again; of an unfinished training nothing but its logs."""
    found = []
    states = run.state_records()
    if run.history_path.exists() and len(states) > 1 and is_whole(states[0]):
        old = tuple(path for record in states[1:] for path in (record, record.with_suffix(".safetensors")) if path.exists())
        found.append(("old resumable states", old))
    if run.tensorboard_dir.is_dir():
        found.append(("TensorBoard logs", (run.tensorboard_dir,)))
    inside = {part.root for part in inner_runs(run)}
    leftovers = tuple(
        path
        for path in sorted(run.root.rglob(".*.tmp"))
        if not inside & set(path.parents) and not any(part.name.endswith(".tmp") for part in path.parents)
    )
    if leftovers:
        found.append(("leftovers of killed processes", leftovers))
    rubbish = [(what, paths, sum(map(size_of, paths))) for what, paths in found]
    return [Rubbish(str(run.root), f"{what}, {size / MIB:.1f} MiB", paths) for what, paths, size in rubbish]


def is_whole(record: Path) -> bool:
    """Whether a resumable state's tensors are those of its record."""
    try:
        return sha256_file(record.with_suffix(".safetensors")) == read_json(record).get("tensors_sha256")
    except (DermalyzeError, OSError):
        return False


def unused_caches(known: Sequence[Run]) -> list[Rubbish]:
    """Image caches that none of the runs uses; none at all where one run does not tell which it uses."""
    folder = cache_folder()
    files = sorted(folder.glob("*.bin")) if folder.is_dir() else []
    settled = [path for path in files if time.time() - path.stat().st_mtime > SETTLED_S]
    if not settled:
        return []
    try:
        used = {key for run in known if run.manifest_path.exists() for key in caches_of(run)}
    except (DermalyzeError, ImportError) as error:
        say(f"image caches are left alone, since it is not clear which are used: {error}")
        return []
    gone = [path for path in settled if path.stem not in used]
    paths = tuple(each for path in gone for each in (path, path.with_suffix(".json")) if each.exists())
    size = sum(map(size_of, paths))
    return [Rubbish("", f"{len(gone)} that no run here uses, {size / MIB:.1f} MiB", paths)] if gone else []


def caches_of(run: Run) -> list[str]:
    """The names of the image caches that a run uses or would use; one for each image of its samples."""
    from dermalyze.data.manifest import read_manifest, usable
    from dermalyze.data.samples import files_of
    from dermalyze.imaging.modalities import modality_of
    from dermalyze.imaging.preprocess import Preprocessing
    from dermalyze.imaging.samples import IMAGE

    if run.best_record_path.exists():
        preprocessing = Preprocessing.from_dict(read_json(run.best_record_path)["preprocessing"])
    else:
        from dermalyze.models.backbones import pretrained_cfg_of

        spec = run.config()
        config = pretrained_cfg_of(spec.model)
        preprocessing = modality_of(spec.data).resolve(spec.preprocess, size=config.size, mean=config.mean, std=config.std)
    frame = usable(read_manifest(run))
    files = [[file[1] for file in files_of(frame, name) if file is not None] for name in (IMAGE, *OPTIONAL_IMAGES)]
    return [cache_key(hashes, preprocessing) for hashes in files if hashes]


def delete(rubbish: Sequence[Rubbish]) -> int:
    """Delete; returns the bytes freed."""
    freed = 0
    for item in rubbish:
        for path in item.paths:
            freed += size_of(path)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return freed
