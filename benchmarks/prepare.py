"""Time and memory of `prepare` on a HAM10000 folder: python benchmarks/prepare.py [FOLDER] [--workers N].

Prints seconds, images per second and the peak memory of this process and of the largest worker, and beside them the ratio
to a plain loop in one process that only decodes the same images, so that the numbers mean something on another machine.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from dermalyze.config.experiment import build_experiment
from dermalyze.core.run import Run
from dermalyze.data.manifest import read_manifest, usable
from dermalyze.data.store import ImageStore
from dermalyze.imaging.decode import PREPARE_FORMATS, decode
from dermalyze.stages.prepare import prepare

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "ham10000"


def peak_mib(who: int) -> float:
    """Peak resident memory; ru_maxrss is in KiB on Linux and in bytes on macOS."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--workers", type=int, default=None)
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        print(f"{arguments.folder} is not there; nothing to measure")
        return
    spec = build_experiment({"data": {"path": str(arguments.folder), "workers": arguments.workers}})
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        start = time.perf_counter()
        result = prepare(run, spec)
        seconds = time.perf_counter() - start
        parent, worker = peak_mib(resource.RUSAGE_SELF), peak_mib(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        prepare(run, spec)
        again = time.perf_counter() - start
        store, paths = ImageStore.open(spec.data), usable(read_manifest(run))["path"].tolist()
        start = time.perf_counter()
        for path in paths:
            decode(store.read(path), formats=PREPARE_FORMATS)
        loop = time.perf_counter() - start
    images = result.summary["images"]
    print(f"prepare          {seconds:8.1f} s   {images} images   {images / seconds:.0f} images/s")
    print(f"the same again   {again:8.1f} s")
    print(f"decoding alone   {loop:8.1f} s   one process; prepare / this = {seconds / loop:.2f}")
    print(f"peak memory      {parent:8.0f} MiB here, {worker:.0f} MiB in the largest worker")


if __name__ == "__main__":
    main()
