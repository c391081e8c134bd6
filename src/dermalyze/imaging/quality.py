"""Image quality in a few numbers: sharpness, brightness, color. Pure numpy, one image at a time."""

# Shapes: H height, W width, F measures.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dermalyze.errors import ModelError
from dermalyze.metrics.ranking import Floats

DARK, LIGHT = 12, 247  # luma of 255 below and above which a pixel shows nothing


@dataclass(frozen=True)
class Appraisal:
    """What was measured on one image.

    Attributes:
        brightness, contrast: mean and standard deviation of luma (ITU-R BT.601), 0..1.
        sharpness: variance of the Laplacian of luma in levels of 255; Pech-Pacheco et al. 2000, doi 10.1109/ICPR.2000.903548.
        dark, light: shares of the pixels that are black and white, 0..1.
        saturation: mean of (largest - smallest channel) / largest, 0..1.
        redness, yellowness: means of R - G and (R + G) / 2 - B, -1..1.
        red_spread, yellow_spread: standard deviations of these.
        variety: entropy of the 512 coarse colors, bits, 0..9.
    """

    brightness: float
    contrast: float
    sharpness: float
    dark: float
    light: float
    saturation: float
    redness: float
    yellowness: float
    red_spread: float
    yellow_spread: float
    variety: float

    def as_tuple(self) -> tuple[float, ...]:
        """The measures in order."""
        return astuple(self)


MEASURES = tuple(field.name for field in fields(Appraisal))


def appraise(pixels_HW3: NDArray[np.uint8]) -> Appraisal:
    """Measure one small image.

    Args:
        pixels_HW3: uint8 RGB, longer edge some 200 px, which the limits belong to.

    >>> appraise(np.full((30, 40, 3), 255, np.uint8)).light
    1.0
    """
    red, green, blue = (pixels_HW3[..., c].astype(np.float32) for c in range(3))
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    largest, smallest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    against_green, against_blue = (red - green) / 255, ((red + green) / 2 - blue) / 255
    edges = luma[1:-1, :-2] + luma[1:-1, 2:] + luma[:-2, 1:-1] + luma[2:, 1:-1] - 4 * luma[1:-1, 1:-1]
    coarse = (pixels_HW3 >> 5).astype(np.uint16)
    code = coarse[..., 0] << 6 | coarse[..., 1] << 3 | coarse[..., 2]
    share = np.bincount(code.ravel(), minlength=512) / code.size
    share = share[share > 0]
    measured = {
        "brightness": luma.mean() / 255,
        "contrast": luma.std() / 255,
        "sharpness": edges.var() if edges.size else 0.0,
        "dark": (luma < DARK).mean(),
        "light": (luma > LIGHT).mean(),
        "saturation": ((largest - smallest) / np.maximum(largest, 1)).mean(),
        "redness": against_green.mean(),
        "yellowness": against_blue.mean(),
        "red_spread": against_green.std(),
        "yellow_spread": against_blue.std(),
        "variety": abs(float((share * np.log2(share)).sum())),
    }
    return Appraisal(**{name: round(float(value), 5) for name, value in measured.items()})


def unbent(looks: Appraisal) -> Floats:
    """(F,) the measures on scales on which ordinary images are spread about evenly to both sides."""
    values = np.array(looks.as_tuple(), np.float64)
    bent = {"sharpness": np.log1p, "dark": np.sqrt, "light": np.sqrt}
    return np.array([bent[name](value) if name in bent else value for name, value in zip(MEASURES, values, strict=True)])


MOST = 1e6  # no measure, and no distance of an image that is like any other, comes near it
CAUTION, REFER = 0.975, 0.995
"""Shares of the training images that lie within the distances of caution and of referral."""


@dataclass(frozen=True, eq=False)
class Likeness:
    """Distance of an image's quality from that of reference images: Mahalanobis distance of the measures.

    Attributes:
        mean: (F,) of `unbent` measures.
        root: (F, F) so that the distance is the length of root @ (measures - mean).
        caution, refer: distances.
        images: from how many images it was learned.

    Mahalanobis 1936, "On the generalized distance in statistics"
    """

    mean: Floats
    root: Floats
    caution: float
    refer: float
    images: int

    def of(self, looks: Appraisal) -> tuple[float, str, str]:
        """Distance, verdict ("accept", "caution", "refer") and words of one image."""
        difference = unbent(looks) - self.mean
        score = float(np.linalg.norm(self.root @ difference))
        verdict = "refer" if score > self.refer else "caution" if score > self.caution else "accept"
        if verdict == "accept":
            return score, verdict, "colors and contrast are those of the training images"
        # the measure without which it is nearest stands out
        kept_FF = 1 - np.eye(len(difference))
        left_F = np.linalg.norm((kept_FF * difference) @ self.root.T, axis=1)
        name = MEASURES[int(np.argmin(left_F))].replace("_", " ")
        far, limit = ("unlike", self.refer) if verdict == "refer" else ("unusual among", self.caution)
        words = f"it looks {far} the training images: distance {score:.3g}, limit {limit:.3g}, most of all in its {name}"
        return score, verdict, words

    @classmethod
    def fit(cls, pictures: list[Appraisal]) -> Likeness:
        """Learn from training images, 50 or more of them."""
        values_NF = np.stack([unbent(looks) for looks in pictures])
        mean = values_NF.mean(axis=0)
        covariance = np.cov(values_NF.T) + np.diag(np.full(values_NF.shape[1], 1e-5))  # of a set of one gray, color is far off
        root = np.linalg.cholesky(np.linalg.inv(covariance)).T
        distance_N = np.linalg.norm((values_NF - mean) @ root.T, axis=1)
        caution, refer = np.quantile(distance_N, [CAUTION, REFER])
        return cls(mean, root, float(caution), float(refer), len(pictures))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        rows = [[float(f"{x:.6g}") for x in row] for row in (self.mean, *self.root)]
        limits = {"caution": round(self.caution, 4), "refer": round(self.refer, 4), "images": self.images}
        return {"measures": list(MEASURES), "mean": rows[0], "root": rows[1:], **limits}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Likeness:
        """Inverse of `as_dict`, of a file that anybody may have written.

        Raises:
            ModelError: it is damaged, or of other measures.
        """
        try:
            mean, root = np.array(values["mean"], np.float64), np.array(values["root"], np.float64)
            limits = float(values["caution"]), float(values["refer"])
            count = len(MEASURES)
            sound = mean.shape == (count,) and root.shape == (count, count) and tuple(values["measures"]) == MEASURES
            sound = sound and 0 < limits[0] <= limits[1] <= MOST and int(values["images"]) > 0
            if not sound or not all((np.abs(part) <= MOST).all() for part in (mean, root)):  # NaN is not
                raise ValueError
            return cls(mean, root, *limits, int(values["images"]))
        except (KeyError, TypeError, ValueError):
            raise ModelError("the image-quality reference in the artifact is damaged; export again") from None
