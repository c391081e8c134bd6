"""Paint an invented lesion into skin: its outline, its colors, and the structures dermoscopy names.

The structures follow Kittler et al. 2016, "Standardization of terminology in dermoscopy and dermatoscopy", J Am Acad
Dermatol 74(6), doi 10.1016/j.jaad.2015.12.038. They are caricatures: enough to be learnt, nothing to diagnose with.

Shapes: H = W = canvas edge, N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dermalyze.data.synthetic.paint import Canvas, Field, Pigments, dots, noise, rise, strokes


@dataclass(frozen=True)
class Site:
    """Where a lesion lies: `rho` is 0 in its middle and 1 on its outline, `cover` fades from 1 inside to 0 outside."""

    canvas: Canvas
    x: Field
    y: Field
    rho: Field
    cover: Field
    size: float
    radius: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def points(self, rng: np.random.Generator, count: int, low: float = 0.0, high: float = 0.9) -> NDArray[np.float64]:
        """`count` random points with `low` <= rho <= `high`, evenly over the area, as (N, 2) in units."""
        angle = rng.uniform(0, 2 * math.pi, count)
        reach = np.sqrt(rng.uniform(low**2, high**2, count)) * self.radius(angle)
        return np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)

    def lattice(self, rng: np.random.Generator, spacing: float, jitter: float, high: float = 0.92) -> NDArray[np.float64]:
        """Points of a shaken triangular lattice inside rho <= `high`, as (N, 2) in units, never empty."""
        reach = int(1.7 * self.size / spacing) + 2
        i, j = np.meshgrid(np.arange(-reach, reach + 1), np.arange(-reach, reach + 1))
        xy = np.stack([(i + 0.5 * (j % 2)).ravel(), (j * 0.866).ravel()], axis=1) * spacing
        xy = xy + rng.uniform(-jitter, jitter, xy.shape) * spacing
        inside = np.hypot(xy[:, 0], xy[:, 1]) <= high * self.radius(np.arctan2(xy[:, 1], xy[:, 0]))
        return xy[inside] if inside.any() else np.zeros((1, 2))


def meshwork(rng: np.random.Generator, site: Site, spacing: float, warp: float) -> Field:
    """Honeycomb of lines, 1 on a line and 0 in a hole; `warp` bends it, in shares of the spacing."""
    angle = rng.uniform(0, math.pi)
    bend = warp * spacing
    x = site.x + np.float32(bend) * noise(rng, site.canvas, spacing * 4)
    y = site.y + np.float32(bend) * noise(rng, site.canvas, spacing * 4)
    wave = np.float32(2 * math.pi / spacing)
    turns = [angle + k * math.pi / 3 for k in range(3)]
    total: Field = sum(np.cos(wave * (np.float32(math.cos(t)) * x + np.float32(math.sin(t)) * y)) for t in turns)  # type: ignore[assignment]
    return rise(-total, -0.7, 1.5)


def patch(rng: np.random.Generator, site: Site, reach: float, offset: float) -> Field:
    """One ragged soft patch of 0..1: `reach` its radius and `offset` its distance from the middle, in lesion radii."""
    angle = rng.uniform(0, 2 * math.pi)
    x = site.x - np.float32(offset * site.size * math.cos(angle))
    y = site.y - np.float32(offset * site.size * math.sin(angle))
    away = np.hypot(x, y) / np.float32(reach * site.size)
    return rise(1.15 - away + 0.22 * noise(rng, site.canvas, site.size * 0.6, 3), 0.0, 0.8)


# --- structures: each adds to `skin`, in place, what `amount` (0..1) of it shows -------------------------------------


def network(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Typical pigment network: even thin brown lines that fade towards the edge."""
    patchy = np.clip(0.65 + 0.45 * noise(rng, site.canvas, 0.14, 2), 0.0, 1.4)
    lines = meshwork(rng, site, rng.uniform(0.034, 0.046), 0.18)
    skin.melanin *= 1 + np.float32(0.6 * amount) * site.cover * patchy * (lines - 0.45)
    skin.melanin += np.float32(0.25 * amount) * lines * site.cover * patchy


def atypical_network(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Atypical network: thick, bent, broken lines of uneven darkness."""
    lines = meshwork(rng, site, rng.uniform(0.045, 0.07), 0.30)
    where = rise(noise(rng, site.canvas, site.size, 3), -0.4, 1.2) * site.cover
    skin.melanin *= 1 + np.float32(0.6 * amount) * where * (lines - 0.4)
    skin.melanin += np.float32(0.5 * amount) * lines * where


def ring_network(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Delicate network in a ring around a pale middle (dermatofibroma)."""
    ring = rise(site.rho, 0.35, 0.6) * site.cover
    lines = meshwork(rng, site, rng.uniform(0.036, 0.048), 0.2)
    skin.melanin += np.float32(amount) * ring * (0.12 + 0.28 * lines)


def globules(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Regular round brown globules."""
    xy = site.lattice(rng, rng.uniform(0.05, 0.075), 0.25)
    spots = dots(site.canvas, xy, rng.uniform(0.012, 0.021, len(xy)), 0.8)
    skin.melanin += np.float32(0.75 * amount) * spots * site.cover


def irregular_dots(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Dark dots and globules of uneven size, off the middle."""
    shift = rng.uniform(-0.35, 0.35, 2) * site.size
    xy = site.points(rng, int(rng.integers(8, 22)), high=0.75) + shift
    spots = dots(site.canvas, xy, rng.uniform(0.008, 0.030, len(xy)), 0.6)
    skin.melanin += np.float32(1.3 * amount) * spots * site.cover


def follicles(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Strawberry pattern: red between yellow-white plugged follicles (actinic keratosis)."""
    xy = site.lattice(rng, rng.uniform(0.05, 0.075), 0.35, high=1.0)
    radius = rng.uniform(0.006, 0.015, len(xy))
    spots = dots(site.canvas, xy, radius, 0.7)
    halo = dots(site.canvas, xy, radius * 1.9, 0.8)
    skin.blood += np.float32(0.35 * amount) * (1 - halo) * site.cover
    skin.white += np.float32(0.45 * amount) * spots * site.cover
    skin.yellow += np.float32(0.30 * amount) * spots * site.cover


def lacunae(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Round red, purple or blue-black lakes of blood with paler septa between (hemangioma)."""
    spacing = max(0.06, site.size * rng.uniform(0.32, 0.5))
    xy = site.lattice(rng, spacing, 0.28, high=0.95)
    radius = spacing * rng.uniform(0.28, 0.64, len(xy))
    lakes = dots(site.canvas, xy, radius, 0.45)
    dark = rng.random(len(xy)) < rng.uniform(0.0, 0.5)
    skin.blood *= 1 - np.float32(0.45 * amount) * site.cover * (1 - lakes)
    skin.blood += np.float32(0.6 * amount) * lakes * site.cover
    if dark.any():
        skin.blue += np.float32(0.6 * amount) * dots(site.canvas, xy[dark], radius[dark], 0.9) * site.cover
    skin.white += np.float32(0.16 * amount) * (1 - lakes) * site.cover


def fissures(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Ridges and furrows like the surface of a brain (seborrhoeic keratosis)."""
    waves = np.abs(noise(rng, site.canvas, 0.15, 3))
    furrow = 1 - rise(waves, 0.0, 0.9)
    skin.melanin *= 1 + np.float32(1.2 * amount) * site.cover * (furrow - 0.45)
    skin.yellow += np.float32(0.08 * amount) * (1 - furrow) * site.cover


def vessels(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Arborising vessels: sharp bright red trunks that branch and thin out (basal cell carcinoma)."""
    paths: list[tuple[NDArray[np.float64], float]] = []
    for _ in range(int(rng.integers(3, 6))):
        start = site.points(rng, 1, 0.75, 1.05)[0]
        grow_vessel(rng, paths, start, math.atan2(-start[1], -start[0]) + rng.normal(0, 0.4), site.size, 0.016, 3)
    tree = strokes(site.canvas, paths, taper=True)
    near = rise(1.25 - site.rho, 0.0, 0.3)
    skin.blood += np.float32(1.5 * amount) * tree * near
    skin.melanin += np.float32(0.15 * amount) * tree * near


def grow_vessel(
    rng: np.random.Generator,
    paths: list[tuple[NDArray[np.float64], float]],
    start: NDArray[np.float64],
    heading: float,
    length: float,
    width: float,
    generations: int,
) -> None:
    """Append to `paths` one winding vessel and, for `generations` more, its branches."""
    steps = 9
    headings = heading + np.cumsum(rng.normal(0, 0.22, steps))
    pace = length * rng.uniform(0.7, 1.2) / steps
    walk = start + np.cumsum(pace * np.stack([np.cos(headings), np.sin(headings)], axis=1), axis=0)
    paths.append((np.vstack([start, walk]), width))
    if generations <= 0:
        return
    for at in rng.choice(np.arange(2, steps), size=2, replace=False):
        turn = rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0)
        grow_vessel(rng, paths, walk[at], headings[at] + turn, length * 0.55, width * 0.62, generations - 1)


def nests(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Blue-gray ovoid nests and leaf-like areas (basal cell carcinoma)."""
    centres = site.points(rng, int(rng.integers(2, 6)), 0.1, 0.8)
    xy = np.concatenate([c + rng.normal(0, 0.035, (4, 2)) for c in centres])
    blobs = dots(site.canvas, xy, rng.uniform(0.015, 0.04, len(xy)), 1.3)
    blobs = blobs * np.clip(0.75 + 0.4 * noise(rng, site.canvas, 0.05, 2), 0, 1.3)
    skin.blue += np.float32(0.70 * amount) * blobs * site.cover
    skin.melanin += np.float32(0.30 * amount) * blobs * site.cover


def milia(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Milia-like cysts: small bright white-yellow dots (seborrhoeic keratosis)."""
    xy = site.points(rng, int(rng.integers(8, 26)))
    spots = dots(site.canvas, xy, rng.uniform(0.008, 0.017, len(xy)), 0.9)
    skin.white += np.float32(0.75 * amount) * spots * site.cover


def comedones(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Comedo-like openings: brown-black plugs with a sharp edge (seborrhoeic keratosis)."""
    xy = site.points(rng, int(rng.integers(6, 18)))
    xy = np.concatenate([xy, xy + rng.normal(0, 0.012, xy.shape)])
    spots = dots(site.canvas, xy, rng.uniform(0.010, 0.020, len(xy)), 0.4)
    skin.melanin += np.float32(1.5 * amount) * spots * site.cover


def scar(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """White scar-like middle with fine bright lines (dermatofibroma)."""
    middle = rise(0.75 - site.rho + 0.10 * noise(rng, site.canvas, site.size * 0.5, 2), 0.0, 0.6)
    lines = meshwork(rng, site, rng.uniform(0.05, 0.07), 0.6)
    skin.melanin *= 1 - np.float32(0.75 * amount) * middle
    skin.blood *= 1 - np.float32(0.55 * amount) * middle
    skin.white += np.float32(0.55 * amount) * middle * (0.7 + 0.4 * lines)


def scale(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Patches of white-yellow surface scale."""
    flakes = rise(noise(rng, site.canvas, 0.05, 2), 0.5, 1.2) * patch(rng, site, rng.uniform(0.5, 0.9), 0.3)
    skin.white += np.float32(0.65 * amount) * flakes * site.cover
    skin.yellow += np.float32(0.20 * amount) * flakes * site.cover


def veil(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Blue-white veil: a structureless blue patch under a whitish haze, off the middle (melanoma)."""
    where = patch(rng, site, rng.uniform(0.35, 0.65), rng.uniform(0.15, 0.5)) * site.cover
    skin.blue += np.float32(0.9 * amount) * where
    skin.melanin *= 1 - np.float32(0.35 * amount) * where
    skin.white += np.float32(0.22 * amount) * where


def regression(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Regression: a white scar-like area with blue-gray pepper in it, off the middle (melanoma)."""
    where = patch(rng, site, rng.uniform(0.3, 0.55), rng.uniform(0.3, 0.6)) * site.cover
    pepper = rise(noise(rng, site.canvas, 0.03), 0.8, 1.5)
    skin.melanin *= 1 - np.float32(0.75 * amount) * where
    skin.white += np.float32(0.30 * amount) * where
    skin.blue += np.float32(0.6 * amount) * where * pepper


def streaks(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """Radial streaks and pseudopods along one part of the edge (melanoma)."""
    towards, spread = rng.uniform(0, 2 * math.pi), rng.uniform(0.6, 1.3)
    paths = []
    for angle in towards + rng.uniform(-spread, spread, int(rng.integers(9, 22))):
        reach = float(site.radius(np.array([angle]))[0]) * np.linspace(0.75, rng.uniform(1.05, 1.3), 5)
        bent = angle + np.linspace(0, rng.normal(0, 0.08), 5)
        paths.append((np.stack([reach * np.cos(bent), reach * np.sin(bent)], axis=1), rng.uniform(0.012, 0.028)))
    skin.melanin += np.float32(0.8 * amount) * strokes(site.canvas, paths, taper=True)


def crust(skin: Pigments, site: Site, rng: np.random.Generator, amount: float) -> None:
    """A small ulcer with a red-brown crust."""
    where = patch(rng, site, rng.uniform(0.14, 0.26), rng.uniform(0.0, 0.5)) * site.cover
    skin.blood += np.float32(1.3 * amount) * where
    skin.melanin += np.float32(0.7 * amount) * where


Painter = Callable[[Pigments, Site, np.random.Generator, float], None]

# Painted in this order. A class's table names them, see `class_appearance.LOOKS`.
STRUCTURES: dict[str, Painter] = {
    "lacunae": lacunae,
    "fissures": fissures,
    "network": network,
    "atypical_network": atypical_network,
    "ring_network": ring_network,
    "globules": globules,
    "follicles": follicles,
    "irregular_dots": irregular_dots,
    "streaks": streaks,
    "nests": nests,
    "veil": veil,
    "regression": regression,
    "crust": crust,
    "scar": scar,
    "vessels": vessels,
    "comedones": comedones,
    "milia": milia,
    "scale": scale,
}


# --- the lesion ------------------------------------------------------------------------------------------------------


def lay_out(rng: np.random.Generator, canvas: Canvas, look: Mapping[str, float], size: float) -> Site:
    """Draw the outline: an ellipse bent by `asymmetry`, notched by `irregularity`, faded by `softness` (each 0..1).

    `size` is the mean radius in units.
    """
    aspect = rng.uniform(1.0, 1.35)
    turn = rng.uniform(0, 2 * math.pi)
    orders = np.arange(2, 10)
    share = np.where(orders < 4, 0.13 * look["asymmetry"] + 0.01, 0.055 * look["irregularity"])
    height = rng.normal(0, 1, len(orders)) * share
    phase = rng.uniform(0, 2 * math.pi, len(orders))

    def radius(angle: NDArray[np.float64]) -> NDArray[np.float64]:
        a = np.asarray(angle) - turn
        ellipse = 1 / np.sqrt((np.cos(a) ** 2) / aspect + (np.sin(a) ** 2) * aspect)
        waves = sum(h * np.cos(k * a + p) for h, k, p in zip(height, orders, phase, strict=True))
        return np.asarray(size * ellipse * np.clip(1 + waves, 0.45, 1.7))

    x, y = canvas.axes()
    ring = radius(np.linspace(0, 2 * math.pi, 721))
    turns = (np.arctan2(y, x) % np.float32(2 * math.pi)) * np.float32(720 / (2 * math.pi))
    rho = np.hypot(x, y) / ring[np.round(turns).astype(np.int32)].astype(np.float32)
    ragged = np.float32(0.05 + 0.10 * look["irregularity"]) * noise(rng, canvas, size * 0.6, 4)
    depth = 1 - rho + ragged * np.clip(rho * 1.5, 0, 1)
    fade = 0.10 + 0.65 * look["softness"]
    return Site(canvas, x, y, 1 - depth, rise(depth, -fade / 2, fade / 2), size, radius)


def paint_lesion(
    rng: np.random.Generator, skin: Pigments, canvas: Canvas, look: Mapping[str, float], size: float
) -> NDArray[np.bool_]:
    """Paint a lesion into `skin`, in place, and return its mask (H, W).

    Args:
        rng: the lesion's own generator.
        skin: pigments of the skin around, changed.
        canvas: where `skin` lies.
        look: one number for each name in `class_appearance.NEUTRAL`; see there.
        size: mean radius in units, > 0.
    """
    site = lay_out(rng, canvas, look, size)
    cover = site.cover
    lean = rng.uniform(0, 2 * math.pi)
    slope = (site.x * np.float32(math.cos(lean)) + site.y * np.float32(math.sin(lean))) / np.float32(size)
    grain = noise(rng, canvas, 0.10, 3)
    blotch = rise(noise(rng, canvas, size * 0.9, 3), -0.2, 1.0)
    flush = rise(noise(rng, canvas, size * 1.1, 2), 0.0, 1.0)
    vary = np.float32(look["variegation"])

    density = 1 + np.float32(look["centre"]) * (0.5 - np.clip(site.rho, 0, 1)) + np.float32(0.24) * grain
    density += np.float32(0.55 * look["asymmetry"]) * np.clip(slope, -1, 1)
    density += vary * (1.1 * blotch - 0.4)
    skin.melanin += np.float32(look["melanin"]) * cover * np.clip(density, 0.08, None)
    skin.blood += np.float32(look["blood"]) * cover * np.clip(1 + 0.25 * grain + vary * (flush - 0.4), 0.1, None)
    skin.blue += np.float32(look["blue"]) * cover * (0.6 + vary * blotch)
    skin.yellow += np.float32(look["yellow"]) * cover * np.clip(0.8 + 0.4 * grain, 0, 1.5)
    for name, paint in STRUCTURES.items():
        if look[name] > 0:
            paint(skin, site, rng, look[name])
    for layer in (skin.melanin, skin.blood, skin.blue):
        np.clip(layer, 0.0, 4.0, out=layer)
    return site.rho < 1
