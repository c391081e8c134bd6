"""Draw one synthetic image under every corruption in every severity: `docs/images/corruptions.jpg`.

python benchmarks/corruption_sheet.py docs/images/corruptions.jpg
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dermalyze.data.synthetic.synth import synthesize
from dermalyze.imaging.corruptions import CORRUPTIONS, SEVERITIES, corrupt

LEFT_PX, TOP_PX, GAP_PX = 78, 30, 4


def sheet(pixels_HW3: np.ndarray) -> Image.Image:
    """Kinds down, severities across, the image as it is first."""
    height, width = pixels_HW3.shape[:2]
    font = ImageFont.load_default(17)
    size = LEFT_PX + (len(SEVERITIES) + 1) * (width + GAP_PX), TOP_PX + len(CORRUPTIONS) * (height + GAP_PX)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    for column, name in enumerate(("as it is", *(f"severity {s}" for s in SEVERITIES))):
        draw.text((LEFT_PX + column * (width + GAP_PX) + width / 2, TOP_PX / 2), name, "black", font, anchor="mm")
    for row, kind in enumerate(CORRUPTIONS):
        top = TOP_PX + row * (height + GAP_PX)
        draw.text((LEFT_PX - 10, top + height / 2), kind, "black", font, anchor="rm")
        copies = [corrupt(pixels_HW3, kind, s, image_id="sheet", seed=7) for s in SEVERITIES]
        for column, copy in enumerate((pixels_HW3, *copies)):
            page.paste(Image.fromarray(copy), (LEFT_PX + column * (width + GAP_PX), top))
    return page


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        synthesize(Path(folder) / "set", lesions=7, seed=11, balance="even", workers=1)
        path = sorted((Path(folder) / "set").rglob("*.jpg"))[3]
        picture = np.asarray(Image.open(path).convert("RGB"))
    sheet(picture).save(sys.argv[1], quality=85, optimize=True)


if __name__ == "__main__":
    main()
