"""The color of the skin around a lesion: CIE Lab, the individual typology angle, and which pixels are skin at all.

The angle describes a photograph, not a person: white balance, exposure and polarised light move it, by tens of degrees where
nobody has calibrated the camera. Its bands are bands of the angle and no Fitzpatrick types, which are asked, not measured.

Shapes: H, W edges of the image, px; N any shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

RIM_RADIUS = 0.75  # in half frames: outside lies mostly none of the lesion
MARGIN = 0.03  # of the longer edge: what is left out around a lesion, where its pigment fades
EDGE_PX = 2  # and around hair, dark corners, ink and glare, on an image of 200 px
DARK = 0.5  # of the image's upper quartile of luma: below are the lens's rim and thick hair
SPREAD = 2.5  # robust standard deviations of lightness beyond which a pixel is hair, scale or a second lesion
LEAST_SHARE = 0.02  # of the frame that must be skin

ITA_BANDS = (("dark", -30.0), ("brown", 10.0), ("tan", 28.0), ("intermediate", 41.0), ("light", 55.0), ("very light", np.inf))
"""Bands of the angle and the degrees up to which each reaches (that value included), darkest first.

Chardon, Cretois & Hourseau 1991, doi:10.1111/j.1467-2494.1991.tb00561.x; Del Bino & Bernerd 2013, doi:10.1111/bjd.12529
"""

CAST = "color cast"

_TO_XYZ = np.array(  # linear sRGB to CIE XYZ, IEC 61966-2-1
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65, 2 degrees
_LINEAR = np.where(
    (_LEVELS := np.arange(256) / 255) <= 0.04045, _LEVELS / 12.92, ((_LEVELS + 0.055) / 1.055) ** 2.4
)  # of each of the 256 levels


@dataclass(frozen=True)
class SkinTone:
    """Color of the skin in one image.

    Attributes:
        ita: individual typology angle, degrees, -180..180; NaN where too little skin is seen.
        lightness, yellow: median L* and b* of the skin, NaN likewise.
        share: of the frame that was taken for skin.
    """

    ita: float
    lightness: float
    yellow: float
    share: float


def lab(rgb_N3: NDArray[np.uint8]) -> Floats:
    """CIE L*a*b* (D65) of sRGB colors: (.., 3).

    >>> lab(np.array([[255, 0, 0], [255, 255, 255]], np.uint8)).round(1) + 0.0
    array([[ 53.2,  80.1,  67.2],
           [100. ,   0. ,   0. ]])

    IEC 61966-2-1:1999; CIE 15:2004, section 8.2.1
    """
    t: Floats = _LINEAR[rgb_N3] @ _TO_XYZ.T / _WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = (f[..., i] for i in range(3))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def typology_angle(lightness_N: Floats | float, yellow_N: Floats | float) -> Floats:
    """Individual typology angle in degrees: atan2(L* - 50, b*); from dark skin, below -30, to very light, above 55.

    >>> typology_angle(np.array([60.0, 50.0, 40.0]), np.array([10.0, 15.0, 10.0]))
    array([ 45.,   0., -45.])

    Chardon, Cretois & Hourseau 1991, doi:10.1111/j.1467-2494.1991.tb00561.x
    """
    return np.asarray(np.degrees(np.arctan2(np.asarray(lightness_N) - 50, np.asarray(yellow_N))), dtype=np.float64)


def ita_band(degrees: float) -> str | None:
    """The band that an angle lies in; None where there is none.

    Beyond 90 degrees either way b* is 0 or below: bluer than gray, which no skin is. Such an image has a cast of its own.

    >>> [ita_band(d) for d in (-31.0, 10.0, 10.1, 41.0, 60.0, 90.0, float("nan"))]
    ['dark', 'brown', 'tan', 'intermediate', 'very light', 'color cast', None]
    """
    if np.isnan(degrees):
        return None
    return CAST if abs(degrees) >= 90 else next(name for name, upper in ITA_BANDS if degrees <= upper)


def skin_tone(pixels_HW3: NDArray[np.uint8], lesion_HW: Mask | None = None) -> SkinTone:
    """Color of the skin: medians over what `skin_of` leaves.

    Args:
        pixels_HW3: uint8 RGB.
        lesion_HW: True on the lesion, where that is known.

    >>> round(skin_tone(np.full((60, 80, 3), (210, 160, 140), np.uint8)).ita, 1)
    48.6
    """
    skin = skin_of(pixels_HW3, lesion_HW)
    share = float(skin.mean()) if skin.size else 0.0
    if share < LEAST_SHARE:
        return SkinTone(np.nan, np.nan, np.nan, share)
    colors = lab(pixels_HW3[skin])
    middle = np.median(colors[:, 0])
    spread = 1.4826 * np.median(np.abs(colors[:, 0] - middle))
    kept = colors[np.abs(colors[:, 0] - middle) <= max(SPREAD * spread, 1.0)]
    lightness, _, yellow = (float(value) for value in np.median(kept, axis=0))
    return SkinTone(float(typology_angle(lightness, yellow)), lightness, yellow, share)


def skin_of(pixels_HW3: NDArray[np.uint8], lesion_HW: Mask | None = None) -> Mask:
    """(H, W) where skin is seen: outside the lesion, or near the rim of the frame where no lesion is known; without dark
    corners, ink and glare, each with a margin."""
    red, green, blue = (pixels_HW3[..., c].astype(np.float32) for c in range(3))
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    if not luma.size:
        return np.zeros(luma.shape, np.bool_)
    smallest = np.minimum(np.minimum(red, green), blue)
    dark = luma < DARK * np.percentile(luma, 75)
    ink = (blue > 80) & (blue >= np.float32(1.1) * red) & (blue - smallest > np.float32(0.38) * blue)
    glare = smallest > max(190.0, float(np.median(smallest)) + 60)
    longer = max(luma.shape)
    outside = radius(luma.shape) > RIM_RADIUS if lesion_HW is None else ~grown(lesion_HW, round(MARGIN * longer))
    return np.asarray(outside & ~grown(dark | ink | glare, round(EDGE_PX * longer / 200)), dtype=np.bool_)


def grown(there_HW: Mask, by_px: int) -> Mask:
    """A mask and all within `by_px` pixels of it, along rows and columns.

    >>> grown(np.array([[False, False, True, False]]), 1)
    array([[False,  True,  True,  True]])
    """
    found = there_HW
    for axis in (0, 1):
        padded = np.pad(found, [(by_px, by_px) if axis == a else (0, 0) for a in (0, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * by_px + 1, axis=axis)
        found = np.asarray(windows.any(axis=-1), dtype=np.bool_)
    return found


@cache
def radius(shape: tuple[int, int]) -> Floats:
    """(H, W) distance from the middle, 1 on the ellipse that touches the frame's edges."""
    height, width = shape
    y, x = (np.arange(height) - (height - 1) / 2) / (height / 2), (np.arange(width) - (width - 1) / 2) / (width / 2)
    distance: Floats = np.hypot(y[:, None], x[None])
    return distance
