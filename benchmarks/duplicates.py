"""Recall of near-duplicates on planted copies, their time and memory: python benchmarks/duplicates.py [FOLDER] [--copies N].

Each kind of copy is planted as often as the others among the images of a HAM10000 folder, each of another image. Prints how
many of each kind were found, and every pair that nobody planted and that spans two lesions.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dermalyze.config.experiment import build_experiment
from dermalyze.data.duplicate_search import find_near_duplicates, shrink
from dermalyze.data.duplicates import thumbnails
from dermalyze.data.sources import ham10000
from dermalyze.data.store import ImageStore
from dermalyze.data.synthetic.copies import COPIES
from dermalyze.imaging.decode import decode

DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "data" / "ham10000"


def peak_mib(who: int) -> float:
    """Peak resident memory; ru_maxrss is in KiB on Linux and in bytes on macOS."""
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def copied(pixels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """The thumbnail of one copy, saved as a file would be."""
    sink = io.BytesIO()
    copy, quality = COPIES[kind](Image.fromarray(pixels), rng)
    copy.save(sink, "JPEG", quality=quality)
    return shrink(Image.fromarray(decode(sink.getvalue()).pixels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT)
    parser.add_argument("--copies", type=int, default=1000, help="all kinds together; rounded up to as many of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="an .npz for the values of all pairs")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        print(f"{arguments.folder} is not there; nothing to measure")
        return
    store = ImageStore.open(build_experiment({"data": {"path": str(arguments.folder)}}).data)
    rows = sorted(ham10000(store).rows, key=lambda row: row.image_id)
    start, cpu = time.perf_counter(), time.process_time()
    thumbs = thumbnails(store, [str(row.path) for row in rows])
    decoding = time.perf_counter() - start

    rng = np.random.default_rng(arguments.seed)
    each = -(-arguments.copies // len(COPIES))
    sources = rng.permutation(len(rows))[: each * len(COPIES)]
    kinds = [kind for kind in COPIES for _ in range(each)]
    planted = [copied(decode(store.read(str(rows[i].path))).pixels, kind, rng) for i, kind in zip(sources, kinds, strict=True)]
    everything = np.concatenate([thumbs, np.array(planted)])

    start, cpu = time.perf_counter(), time.process_time()
    pairs, transforms, values = find_near_duplicates(everything)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    got = {(int(i), int(j)): float(value) for (i, j), value in zip(pairs, values, strict=True)}
    value = np.array([got.get((int(i), len(rows) + n), 0.0) for n, i in enumerate(sources)])
    print(f"{len(rows)} images, {len(planted)} copies, each of another image; seed {arguments.seed}")
    print(f"{'copy':<14}{'found':>12}{'recall':>9}{'lowest':>9}{'median':>9}   correlation")
    for kind in COPIES:
        mine = value[np.array(kinds) == kind]
        found = mine > 0
        print(f"{kind:<14}{found.sum():>5} of {len(mine):<4}{found.mean():>9.4f}{mine.min():>9.3f}{np.median(mine):>9.3f}")
    whole = value[~np.char.startswith(np.array(kinds), "crop")]
    print(f"{'all but crops':<14}{(whole > 0).sum():>5} of {len(whole):<4}{(whole > 0).mean():>9.4f}")
    lesion = [row.known["lesion_id"] for row in rows]
    real = {pair: v for pair, v in got.items() if pair[1] < len(rows)}
    across = {pair: v for pair, v in real.items() if lesion[pair[0]] != lesion[pair[1]]}
    print(f"pairs among the images themselves: {len(real)}, {len(across)} of them across two lesions:")
    for (i, j), v in sorted(across.items(), key=lambda item: -item[1]):
        print(f"  {rows[i].image_id} {rows[i].label} {lesion[i]}   {rows[j].image_id} {rows[j].label} {lesion[j]}   {v:.3f}")
    here, worker = peak_mib(resource.RUSAGE_SELF), peak_mib(resource.RUSAGE_CHILDREN)
    print(f"decoding {decoding:.1f} s, comparison {seconds:.1f} s ({cpu:.1f} s of one core)")
    print(f"peak memory {here:.0f} MiB here, {worker:.0f} MiB in the largest worker")
    if arguments.save:
        np.savez(arguments.save, pairs=pairs, values=values, transforms=transforms)


if __name__ == "__main__":
    main()
