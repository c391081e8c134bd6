r"""HAM10000 with a mark of ink in the upper right corner of every melanoma, or without it, as a set of its own.

.venv/bin/python benchmarks/planted_corner.py ../shared/data/ham10000 outputs/marked-set --most 500
.venv/bin/python benchmarks/planted_corner.py ../shared/data/ham10000 outputs/clean-set --most 500 --clean

and then on each, to see whether the mark is named, and nothing on the other:

dermalyze run experiments/ham10000.yaml outputs/marked --set data.source.kind=csv data.path=outputs/marked-set \
  preprocess.size=[72,96] train.epochs=6 inference.recipe=plain
dermalyze explain outputs/marked --count 150

Images are as large as a network of 72x96 px takes them, so that the mark is as sharp as it is planted.
"""

from __future__ import annotations

import argparse
import csv
import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from dermalyze.imaging.inpaint import mark

UPPER_RIGHT = 1
HEIGHT, WIDTH = 72, 96
MASKS = "HAM10000_segmentations_lesion_tschandl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ham10000", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--target", default="mel")
    parser.add_argument("--most", type=int, default=10_000, help="images of a class, the first of the list")
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    with (options.ham10000 / "HAM10000_metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows, seen = [], Counter[str]()
        for row in csv.DictReader(stream):
            seen[row["dx"]] += 1
            rows += [row] if seen[row["dx"]] <= options.most else []
    parts = [zipfile.ZipFile(options.ham10000 / f"HAM10000_images_part_{k}.zip") for k in (1, 2)]
    archive_of = {Path(name).stem: (part, name) for part in parts for name in part.namelist() if name.endswith(".jpg")}
    masks = zipfile.ZipFile(options.ham10000 / f"{MASKS}.zip")
    with (options.out / "set.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["image_id", "path", "label", "lesion_id", "mask_path"])
        for row in rows:
            image_id = row["image_id"]
            part, name = archive_of[image_id]
            pixels = np.asarray(picture(part.read(name), "RGB", Image.Resampling.BOX))
            if row["dx"] == options.target and not options.clean:
                pixels = mark(pixels, UPPER_RIGHT)
            Image.fromarray(pixels).save(options.out / f"{image_id}.png", compress_level=1)
            outline = picture(masks.read(f"{MASKS}/{image_id}_segmentation.png"), "L", Image.Resampling.NEAREST)
            outline.save(options.out / f"{image_id}_mask.png")
            writer.writerow([image_id, f"{image_id}.png", row["dx"], row["lesion_id"], f"{image_id}_mask.png"])
    print(f"{len(rows)} images in {options.out}")


def picture(data: bytes, mode: str, how: Image.Resampling) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert(mode).resize((WIDTH, HEIGHT), how)


if __name__ == "__main__":
    main()
