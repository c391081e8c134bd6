"""Everything about an invented photograph that says nothing of the class: skin, hair, light, lens and instrument.

Nothing here knows a class, and every function draws from generators of its own, so no shortcut can come in this way.

Shapes: H = W = canvas edge; h, w the photograph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dermalyze.data.synthetic.paint import Canvas, Field, Pigments, dots, noise, rise, strokes

MAGNIFICATION = (0.86, 1.2)  # least and most that a photograph enlarges, relative to the lesion's usual scale
SHIFT = 0.10  # most that a lesion lies off the middle, in units along each axis

# Melanin of the six skin types of Fitzpatrick and their shares here: mostly light, as in HAM10000, but never only light.
SKIN_MELANIN = (0.03, 0.08, 0.15, 0.26, 0.42, 0.65)
SKIN_SHARE = (0.22, 0.30, 0.22, 0.12, 0.08, 0.06)
HAIR_COLOURS = ((0.10, 0.07, 0.06), (0.22, 0.13, 0.08), (0.45, 0.30, 0.18), (0.85, 0.82, 0.80))


@dataclass(frozen=True)
class Session:
    """What the photographs of one lesion share: the patient's hair and the clinic's instrument.

    Attributes:
        hairs: mean number of hairs in a frame.
        hair_colour: red, green, blue in 0..1.
        ruler: a scale is marked in the ring of the instrument.
        tube: radius at which the view ends in black, in half diagonals of the frame; above 1 it is not seen.
        vignette: loss of light in the corners, 0..1.
        warmth: red gain over blue gain, less one.
        pink: loss of green, 0..1.
        exposure: brightness, 1 is neutral.
    """

    hairs: float
    hair_colour: tuple[float, float, float]
    ruler: bool
    tube: float
    vignette: float
    warmth: float
    pink: float
    exposure: float


def draw_session(rng: np.random.Generator) -> Session:
    """Draw the hair and the instrument of one lesion."""
    hairs = float(rng.choice([0.0, rng.uniform(1, 6), rng.uniform(8, 26)], p=[0.62, 0.29, 0.09]))
    return Session(
        hairs=hairs,
        hair_colour=HAIR_COLOURS[int(rng.choice(4, p=[0.4, 0.3, 0.15, 0.15]))],
        ruler=bool(rng.random() < 0.12),
        tube=float(rng.uniform(0.80, 0.97)) if rng.random() < 0.11 else 2.0,
        vignette=float(rng.uniform(0.0, 0.32)),
        warmth=float(rng.normal(0.0, 0.07)),
        pink=float(rng.uniform(-0.05, 0.09)),
        exposure=float(rng.normal(1.0, 0.08)),
    )


def canvas_for(size_px: tuple[int, int]) -> Canvas:
    """The smallest canvas that every turn, shift and magnification of a photograph of `size_px` (h, w) stays inside."""
    height, width = size_px
    unit_px = float(min(height, width))
    reach = math.hypot(height, width) / 2 / MAGNIFICATION[0] + SHIFT * unit_px * math.sqrt(2)
    return Canvas(edge_px=2 * math.ceil(reach) + 4, unit_px=unit_px)


def paint_skin(rng: np.random.Generator, canvas: Canvas) -> Pigments:
    """Bare skin of a random tone: mottled, furrowed, sometimes freckled or with fine vessels."""
    tone = int(rng.choice(len(SKIN_MELANIN), p=SKIN_SHARE))
    melanin = SKIN_MELANIN[tone] * rng.uniform(0.8, 1.25)
    blood = rng.uniform(0.10, 0.36) * (1 - 0.5 * SKIN_MELANIN[tone])
    mottle, flush = noise(rng, canvas, 0.16, 4), noise(rng, canvas, 0.24, 4)
    furrows = 1 - rise(np.abs(noise(rng, canvas, 0.07, 2)), 0.0, 0.5)
    pores = noise(rng, canvas, 0.02, 2)
    rough = rng.uniform(0.3, 1.0)
    skin = Pigments(
        melanin=np.clip(melanin * (1 + 0.08 * mottle) + 0.016 * rough * mottle + 0.007 * pores, 0, None),
        blood=np.clip(blood * (1 + 0.10 * flush) + 0.04 * rough * furrows + 0.010 * pores, 0, None),
        blue=np.full_like(mottle, rng.uniform(0.0, 0.10)),
        white=np.clip(0.03 * rough * noise(rng, canvas, 0.05, 2), 0, None),
        yellow=np.full_like(mottle, max(0.0, rng.uniform(-0.1, 0.25))),
    )
    half = canvas.edge_px / canvas.unit_px / 2
    if rng.random() < 0.3:
        xy = rng.uniform(-half, half, (int(rng.integers(6, 40)), 2))
        freckles = dots(canvas, xy, rng.uniform(0.012, 0.05, len(xy)), 1.6)
        skin.melanin += np.float32(rng.uniform(0.08, 0.25)) * freckles * np.clip(1 + 0.5 * mottle, 0, 2)
    if rng.random() < 0.15:
        skin.blood += np.float32(rng.uniform(0.03, 0.10)) * (1 - rise(np.abs(noise(rng, canvas, 0.25, 3)), 0.0, 0.30))
    return skin


def photograph(
    rng: np.random.Generator,
    canvas: Canvas,
    color: Field,
    mask: NDArray[np.bool_],
    session: Session,
    size_px: tuple[int, int],
) -> tuple[Image.Image, Image.Image]:
    """Take one photograph of a painted canvas.

    Args:
        rng: the photograph's own generator: turn, scale, place, light, focus, hairs, bubbles, sensor noise.
        canvas: the canvas, from `canvas_for(size_px)`.
        color: (H, W, 3) in 0..1.
        mask: (H, W) of the lesion.
        session: what photographs of this lesion share.
        size_px: height and width.

    Returns:
        The image (RGB) and its lesion mask (L, 0 or 255), each of `size_px`.
    """
    view = draw_view(rng, canvas, size_px)
    blur = float(rng.gamma(2.0, 0.0012)) * canvas.unit_px
    planes = [take(color[..., c], view, size_px) for c in range(3)]
    lesion = take(mask.astype(np.float32), view, size_px) > 0.5
    scene = np.stack(planes, axis=-1)
    frame = Canvas(edge_px=max(size_px), unit_px=float(min(size_px)))
    scene = lay_hairs(rng, scene, frame, session)
    if rng.random() < 0.12:
        scene = lay_bubbles(rng, scene, frame)
    scene = light(rng, scene, session)
    soft = to_image(scene).filter(ImageFilter.GaussianBlur(blur))
    scene = close_view(rng, np.asarray(soft, dtype=np.float32) / np.float32(255), frame, session)
    scene = scene + rng.standard_normal(scene.shape, dtype=np.float32) * np.float32(rng.uniform(0.002, 0.010))
    return to_image(scene), Image.fromarray(lesion.astype(np.uint8) * 255)


def draw_view(rng: np.random.Generator, canvas: Canvas, size_px: tuple[int, int]) -> tuple[float, ...]:
    """Coefficients (a, b, c, d, e, f) that take a pixel of the photograph to one of the canvas."""
    height, width = size_px
    turn, flip = rng.uniform(0, 2 * math.pi), rng.choice([-1.0, 1.0])
    step = 1 / math.exp(rng.uniform(math.log(MAGNIFICATION[0]), math.log(MAGNIFICATION[1])))
    a, b = step * math.cos(turn) * flip, -step * math.sin(turn)
    d, e = step * math.sin(turn) * flip, step * math.cos(turn)
    middle = canvas.edge_px / 2 + rng.uniform(-SHIFT, SHIFT, 2) * canvas.unit_px
    c = float(middle[0]) - a * width / 2 - b * height / 2
    f = float(middle[1]) - d * width / 2 - e * height / 2
    return (a, b, c, d, e, f)


def take(plane: Field, view: tuple[float, ...], size_px: tuple[int, int]) -> Field:
    """Resample one (H, W) plane to (h, w)."""
    image = Image.fromarray(np.ascontiguousarray(plane))
    size = (size_px[1], size_px[0])
    return np.asarray(image.transform(size, Image.Transform.AFFINE, view, Image.Resampling.BICUBIC), dtype=np.float32)


def crop(field: Field, like: Field) -> Field:
    """The middle (h, w) of a square field that is as wide as the longer edge of the photograph `like`."""
    height, width = like.shape[:2]
    top, left = (field.shape[0] - height) // 2, (field.shape[1] - width) // 2
    return field[top : top + height, left : left + width]


def lay_hairs(rng: np.random.Generator, scene: Field, frame: Canvas, session: Session) -> Field:
    """Draw the hairs of the session, bent and mostly in one direction, over (h, w, 3)."""
    count = int(rng.poisson(session.hairs))
    if count == 0:
        return scene
    half = frame.edge_px / frame.unit_px / 2
    lie = rng.uniform(0, 2 * math.pi)
    paths = []
    for _ in range(count):
        heading = lie + rng.normal(0, 0.55) + np.cumsum(np.full(12, rng.normal(0, 0.08)))
        pace = rng.uniform(0.25, 1.3) / 12
        walk = np.cumsum(pace * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
        paths.append((walk - walk[6] + rng.uniform(-half, half, 2), rng.uniform(0.004, 0.010)))
    cover = np.float32(rng.uniform(0.6, 0.95)) * crop(strokes(frame, paths), scene)[..., None]
    return scene + cover * (np.array(session.hair_colour, np.float32) - scene)


def lay_bubbles(rng: np.random.Generator, scene: Field, frame: Canvas) -> Field:
    """Draw a few bubbles of contact gel: a dark rim, and a glint on one side."""
    x, y = (crop(np.broadcast_to(axis, (frame.edge_px,) * 2), scene) for axis in frame.axes())
    for _ in range(int(rng.integers(1, 5))):
        px, py = rng.uniform(-0.65, 0.65, 2)
        radius = rng.uniform(0.015, 0.07)
        away = np.hypot(x - np.float32(px), y - np.float32(py)) / np.float32(radius)
        rim = np.exp(-(((away - 1) / 0.16) ** 2))[..., None]
        glint = np.exp(-(((x - px + 0.45 * radius) ** 2 + (y - py + 0.45 * radius) ** 2) / (0.22 * radius) ** 2))[..., None]
        scene = scene * (1 - np.float32(0.28) * rim)
        scene = scene + np.float32(0.75) * glint * (1 - scene) + np.float32(0.08) * rise(1 - away, 0, 0.4)[..., None]
    return scene.astype(np.float32)


def light(rng: np.random.Generator, scene: Field, session: Session) -> Field:
    """Exposure, color temperature, saturation and contrast of one shot."""
    exposure = session.exposure * rng.normal(1.0, 0.03)
    warmth = session.warmth + rng.normal(0, 0.02)
    gain = exposure * np.array([1 + warmth / 2, 1 - session.pink, 1 - warmth / 2], np.float32)
    scene = np.clip(scene * gain.astype(np.float32), 0, 1.2)
    grey = scene.mean(axis=-1, keepdims=True)
    scene = grey + np.float32(rng.uniform(0.85, 1.25)) * (scene - grey)
    return np.asarray(np.clip(scene, 0.0, 1.0) ** np.float32(rng.uniform(0.9, 1.15)), dtype=np.float32)


def close_view(rng: np.random.Generator, scene: Field, frame: Canvas, session: Session) -> Field:
    """What lies in the instrument: falling light, the black end of its tube, and the marks of a scale."""
    height, width = scene.shape[:2]
    half = math.hypot(height, width) / 2 / frame.unit_px
    x, y = (crop(np.broadcast_to(axis, (frame.edge_px,) * 2), scene) for axis in frame.axes())
    off = rng.normal(0, 0.03, 2)
    away = np.hypot(x - np.float32(off[0]), y - np.float32(off[1])) / np.float32(half)
    shade = 1 - np.float32(session.vignette) * np.clip(away, 0, 1.2) ** 2.4
    shade = shade * (1 - rise(away, session.tube - 0.02, session.tube + 0.03) * np.float32(0.94))
    scene = scene * shade[..., None]
    if session.ruler:
        middle, paths = rng.uniform(0, 2 * math.pi), []
        for tick, angle in enumerate(middle + np.arange(-18, 19) * 0.055):
            long = 0.055 if tick % 5 == 0 else 0.032
            reach = np.array([0.84 * half, 0.84 * half + long])
            paths.append((np.stack([reach * math.cos(angle), reach * math.sin(angle)], axis=1), 0.008))
        scene = scene * (1 - np.float32(0.85) * crop(strokes(frame, paths), scene)[..., None])
    return np.asarray(scene, dtype=np.float32)


def to_image(scene: Field) -> Image.Image:
    """Round (h, w, 3) in 0..1 to an 8-bit RGB image."""
    return Image.fromarray(np.round(np.clip(scene, 0, 1) * 255).astype(np.uint8))
