"""The gate on real images: how often it refuses dermoscopy that it has not seen, and what it finds of images that are none.

    .venv/bin/python benchmarks/gate.py RUN [--ood FOLDER_OR_NPZ ...] [--write]

RUN is a run on HAM10000. What a model of it would know is learned from its training split, as `export` does; `--write` keeps
that as the reference of dermoscopy for models that do not say (`MODALITIES` in src/dermalyze/imaging/modalities.py).
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermalyze.audit.quality_reference import training_appearance
from dermalyze.core.run import Run
from dermalyze.data.splitting import read_part
from dermalyze.data.store import ImageStore
from dermalyze.imaging.decode import PREPARE_FORMATS, decode
from dermalyze.imaging.modalities import MODALITIES
from dermalyze.imaging.preprocess import small
from dermalyze.imaging.quality import Likeness, appraise
from dermalyze.scoring.ood_images import SYNTHETIC
from dermalyze.serve.predictor.gate import check_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--ood", type=Path, nargs="*", default=[])
    parser.add_argument("--images", type=int, default=1500, help="of the test split, at most")
    parser.add_argument("--network", type=int, default=64, help="shorter edge of the network's input, px")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    spec = run.config()
    known = training_appearance(run, spec)
    assert known is not None
    if arguments.write:
        reference = MODALITIES["dermoscopy"].valid.reference
        assert reference is not None
        place = Path(__file__).parents[1] / "src/dermalyze/imaging" / reference
        place.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    likeness, store = Likeness.from_dict(known), ImageStore.open(spec.data)
    tested = read_part(run, "test")["path"].tolist()[: arguments.images]
    pictures: dict[str, Iterator[Image.Image]] = {
        "HAM10000, test split": (decode(store.read(path), formats=PREPARE_FORMATS).image for path in tested)
    }
    pictures |= {path.stem: foreign(path) for path in arguments.ood}
    pictures |= {kind: made(kind) for kind in SYNTHETIC}
    print(f"{'pictures':22} {'n':>5} {'accept':>8} {'caution':>8} {'refer':>8}   of these by quality, by modality")
    for name, those in pictures.items():
        report(name, those, likeness, arguments.network)


def report(name: str, pictures: Iterator[Image.Image], likeness: Likeness, network: int) -> None:
    verdicts: Counter[str] = Counter()
    why: Counter[str] = Counter()
    for picture in pictures:
        gate = check_image(appraise(small(picture)), *picture.size, network=(network, network), likeness=likeness)
        verdicts[gate.verdict] += 1
        why["quality"] += gate.quality == "refer"
        why["modality"] += gate.modality == "refer"
    n = sum(verdicts.values())
    shares = "".join(f" {100 * verdicts[verdict] / n:7.1f}%" for verdict in ("accept", "caution", "refer"))
    print(f"{name:22} {n:5}{shares}   {why['quality']}, {why['modality']}", flush=True)


def made(kind: str) -> Iterator[Image.Image]:
    """Images that are made here."""
    rng = np.random.default_rng(0)
    yield from (Image.fromarray(SYNTHETIC[kind](rng, 150, 200, number)) for number in range(32))


def foreign(path: Path) -> Iterator[Image.Image]:
    """Images of a folder, or the test split of a MedMNIST file."""
    if path.suffix == ".npz":
        arrays: Any = np.load(path, allow_pickle=False)
        yield from (colour(array) for array in arrays["test_images"][:300])
        return
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in (".png", ".jpg", ".jpeg"):
            yield decode(file.read_bytes()).image


def colour(array: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(array).convert("RGB")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
