"""Augmentation: each change does what its name says, positions alone decide, and what is off is off."""

# Shapes: B images, H x W pixels.

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dermalyze.config.train import AugmentSpec
from dermalyze.imaging.tabular import fit_encoder
from dermalyze.training import augment as module
from dermalyze.training.augment import POLICIES, augment, hide_inputs, mix, resolve

torch.set_num_threads(1)
OFF = AugmentSpec(policy="none")
SWITCHES: list[dict[str, Any]] = [
    {"hflip": 0.5}, {"vflip": 0.5}, {"rotate_deg": 90.0}, {"translate": 0.2}, {"scale": (0.8, 1.2)}, {"brightness": 0.3},
    {"contrast": 0.3}, {"saturation": 0.5}, {"hue": 0.1}, {"blur": 0.7}, {"cutout": 0.7}, {"perspective": 0.5},
]  # fmt: skip


def only(**fields: Any) -> AugmentSpec:
    return AugmentSpec(policy="none", **fields)


def noise(batch: int = 6, height: int = 20, width: int = 30, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (batch, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def smooth(batch: int = 6, height: int = 60, width: int = 80) -> Tensor:
    """Images without fine detail, so that resampling twice is nearly resampling once."""
    small = torch.rand(batch, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    large = F.interpolate(small, (height, width), mode="bicubic", align_corners=False).clamp(0.1, 0.9)
    return (large * 255).round().byte().permute(0, 2, 3, 1).contiguous()


def plain(images_BHW3: Tensor) -> Tensor:
    return images_BHW3.permute(0, 3, 1, 2).float() / 255


def run(images: Tensor, spec: AugmentSpec, *, seed: int = 1, epoch: int = 0, first: int = 0) -> Tensor:
    return augment(images, spec, seed=seed, epoch=epoch, positions_B=np.arange(first, first + len(images)))


def test_none_is_exact_and_leaves_the_input_alone() -> None:
    images = noise()
    kept = images.clone()
    for policy in POLICIES:
        run(images, AugmentSpec(policy=policy))  # type: ignore[arg-type]
        assert torch.equal(images, kept)
    out = run(images, OFF)
    assert torch.equal(out, plain(images))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [1, 3, 8])
def test_positions_decide_whatever_the_batch(policy: Any, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, spec = noise(24), AugmentSpec(policy=policy)
    whole = run(images, spec)
    parts = torch.cat([run(images[at : at + size], spec, first=at) for at in range(0, 24, size)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-6)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    shuffled = augment(images[order], spec, seed=1, epoch=0, positions_B=order.numpy())
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-6)
    monkeypatch.setattr(module, "_CHUNK_PX", 5 * 20 * 30)
    torch.testing.assert_close(run(images, spec), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_address_gives_the_same_bits_and_another_does_not(policy: Any) -> None:
    images, spec = noise(12), AugmentSpec(policy=policy)
    first = run(images, spec)
    assert torch.equal(first, run(images, spec))
    if policy != "none":
        assert not torch.equal(first, run(images, spec, epoch=1))
        assert not torch.equal(first, run(images, spec, seed=2))
        assert not torch.equal(first, run(images, spec, first=12))


def test_a_picture_drawn_twice_differs() -> None:
    twice = noise(1).repeat(2, 1, 1, 1)
    out = run(twice, AugmentSpec())
    assert not torch.equal(out[0], out[1])


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: next(iter(switch)))
def test_each_switch_changes_something_alone(switch: dict[str, Any]) -> None:
    images = noise(24)
    changed = [not torch.equal(a, b) for a, b in zip(run(images, only(**switch)), plain(images), strict=True)]
    share = next(iter(switch.values())) if set(switch) & {"hflip", "vflip", "blur", "cutout"} else 1.0
    assert abs(sum(changed) - 24 * share) < 4 * math.sqrt(24 * share * (1 - share)) + 0.5


@pytest.mark.parametrize("switch", SWITCHES[1:], ids=lambda switch: next(iter(switch)))
def test_switching_one_on_leaves_the_draws_of_the_others(switch: dict[str, Any]) -> None:
    """With a second change on, so slight that it can't be seen, the same images are flipped."""
    images, (name,) = smooth(24), switch
    slight = {"vflip": 0.0, "rotate_deg": 1e-3, "scale": (1.0, 1.0001), "blur": 0.0, "cutout": 0.0}.get(name, 1e-4)
    both = run(images, only(hflip=0.5, **{name: slight}))
    torch.testing.assert_close(both, run(images, only(hflip=0.5)), rtol=0, atol=5e-3)


def test_flips_are_exact_and_as_frequent_as_asked() -> None:
    images = noise(400, 4, 6)
    out, source = run(images, only(hflip=0.5, vflip=0.3)), plain(images)
    flips = {(x, y): source.flip([3] * x + [2] * y) for x in (0, 1) for y in (0, 1)}
    counts = {key: sum(torch.equal(a, b) for a, b in zip(out, image, strict=True)) for key, image in flips.items()}
    assert sum(counts.values()) == 400
    for (x, y), count in counts.items():
        share = 0.5 * (0.3 if y else 0.7)
        assert abs(count - 400 * share) < 4 * math.sqrt(400 * share * (1 - share)), (x, y)


def test_flips_of_the_resampled_path_are_those_of_the_exact_one() -> None:
    images = noise(16)
    exact = run(images, only(hflip=0.5, vflip=0.5))
    torch.testing.assert_close(run(images, only(hflip=0.5, vflip=0.5, translate=1e-9)), exact, rtol=0, atol=1e-4)


def fixed(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    """Let the random numbers of these columns be given ones, and all others one half (the middle of every range)."""

    def stub(seed: int, epoch: int, positions_B: Any, n: int, *, stream: int) -> np.ndarray[Any, Any]:
        drawn = np.full((len(positions_B), n), 0.5)
        for name, value in values.items():
            drawn[:, module._COLUMNS.index(name)] = value
        return drawn

    monkeypatch.setattr(module, "uniforms", stub)


@pytest.mark.parametrize(("draw", "turns"), [(0.25, 1), (0.75, 3), (1.0, 2)])
def test_quarter_turns_of_a_square_are_exact(draw: float, turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, rotate=draw)
    images = noise(2, 17, 17)
    torch.testing.assert_close(run(images, only(rotate_deg=180)), plain(images).rot90(turns, (2, 3)), rtol=0, atol=1e-4)


def test_a_circle_stays_a_circle_in_a_frame_that_is_not_square(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotating a centered disc by any angle gives the same disc; outside it reflection may repeat it."""
    y, x = np.mgrid[:60, :100]
    radius = np.hypot(y - 29.5, x - 49.5)
    disc = 255 / (1 + np.exp((radius - 18) / 2))
    images = torch.from_numpy(disc.round().astype(np.uint8))[None, :, :, None].repeat(1, 1, 1, 3)
    inside = torch.from_numpy(radius < 28)
    for draw in (0.1, 0.3, 0.62, 0.75, 0.9):
        fixed(monkeypatch, rotate=draw)
        assert (run(images, only(rotate_deg=180)) - plain(images))[:, :, inside].abs().max() < 0.02


def test_two_rotations_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's rotation and the affine map's are one turn by the sum of both angles."""
    policy = resolve(AugmentSpec())
    assert (policy.rotate_deg, policy.affine_deg) == (25, 15)
    monkeypatch.setitem(POLICIES, "standard", module.Policy(rotate_deg=25, affine_deg=15))
    fixed(monkeypatch, rotate=1.0, affine=0.0)
    composed = run(smooth(), AugmentSpec())
    fixed(monkeypatch, rotate=1.0)
    torch.testing.assert_close(composed, run(smooth(), only(rotate_deg=10)), rtol=0, atol=1e-5)


def test_a_shift_moves_by_its_share_of_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, shift_x=1.0, shift_y=0.0)
    images = noise(2, 20, 30)
    out = run(images, only(translate=0.1))
    torch.testing.assert_close(out[:, :, :18, 3:], plain(images)[:, :, 2:, :27], rtol=0, atol=1e-4)


def test_zoom_enlarges_about_the_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, scale=1.0)
    images = smooth(2, 40, 40)
    out = run(images, only(scale=(1.0, 2.0)))
    expected = F.interpolate(plain(images)[:, :, 10:30, 10:30], size=(40, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(out[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2], rtol=0, atol=1e-4)


def test_uncovered_corners_are_filled_from_the_picture() -> None:
    white = torch.full((16, 24, 36, 3), 200, dtype=torch.uint8)
    out = run(white, only(rotate_deg=180, translate=0.3, scale=(0.5, 1.0)))
    torch.testing.assert_close(out, plain(white), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("draw", [0.0, 0.3, 1.0])
def test_colour_jitter_is_torchvisions(name: str, draw: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from dermalyze.models import torch_guard

    torch_guard.install()
    from torchvision.transforms.v2 import functional as V

    fixed(monkeypatch, **{name: draw})
    images = (smooth(3, 40, 40) // 3 + 80).byte()  # middle tones, so that nothing is clipped between
    out = run(images, only(**{name: 0.3}))
    expected = getattr(V, f"adjust_{name}")(plain(images), 1 + 0.3 * (2 * draw - 1))
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-3)


def test_colour_jitter_composes_brightness_contrast_saturation_in_that_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from dermalyze.models import torch_guard

    torch_guard.install()
    from torchvision.transforms.v2 import functional as V

    fixed(monkeypatch, brightness=0.0, contrast=0.1, saturation=1.0)
    images = (smooth(3, 40, 40) // 3 + 80).byte()
    expected = V.adjust_saturation(V.adjust_contrast(V.adjust_brightness(plain(images), 0.7), 0.76), 1.3)
    torch.testing.assert_close(run(images, only(brightness=0.3, contrast=0.3, saturation=0.3)), expected, rtol=0, atol=2e-3)


def test_greys_have_no_hue_and_luma_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, hue=0.9, saturation=0.1)
    grey = noise(2)[..., :1].repeat(1, 1, 1, 3)
    torch.testing.assert_close(run(grey, only(hue=0.5, saturation=0.5)), plain(grey), rtol=0, atol=1e-5)
    images = (smooth(3) // 3 + 80).byte()
    luma = torch.from_numpy(module._LUMA).float()[None, :, None, None]
    turned = run(images, only(hue=0.1))
    assert not torch.allclose(turned, plain(images), atol=1e-2)
    torch.testing.assert_close((turned * luma).sum(1), (plain(images) * luma).sum(1), rtol=0, atol=1e-4)


def test_hue_turns_the_way_and_about_as_far_as_hsv(monkeypatch: pytest.MonkeyPatch) -> None:
    """YIQ's circle is not HSV's, but a tenth of a turn there is nearly one here for skin tones."""
    skin = torch.tensor([[[[190, 130, 120]]]], dtype=torch.uint8).repeat(1, 4, 4, 1)
    before = colorsys.rgb_to_hsv(190, 130, 120)[0]
    for draw in (0.0, 1.0):
        fixed(monkeypatch, hue=draw)
        red, green, blue = run(skin, only(hue=0.1))[0, :, 0, 0].tolist()
        turn = (colorsys.rgb_to_hsv(red, green, blue)[0] - before + 0.5) % 1 - 0.5
        assert abs(turn) == pytest.approx(0.1, abs=0.05)


def test_colours_are_clipped_at_the_end() -> None:
    out = run(noise(20), only(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5))
    assert out.min() == 0
    assert out.max() == 1


def test_blur_smooths_keeps_the_mean_and_leaves_the_rest() -> None:
    images = noise(40, 64, 64)
    out, source = run(images, only(blur=0.5)), plain(images)
    blurred = torch.tensor([not torch.equal(a, b) for a, b in zip(out, source, strict=True)])
    assert 10 <= blurred.sum() <= 30
    assert (out[blurred].std((1, 2, 3)) <= source[blurred].std((1, 2, 3))).all()
    torch.testing.assert_close(out[blurred].mean((2, 3)), source[blurred].mean((2, 3)), rtol=0, atol=5e-3)


def test_blur_is_a_gaussian(monkeypatch: pytest.MonkeyPatch) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    fixed(monkeypatch, blur=0.0, sigma=1.0)
    images = noise(1, 112, 150)  # half of 224 at the short edge: half of the largest sigma
    out = run(images, only(blur=0.5))
    expected = ndimage.gaussian_filter(plain(images)[0].numpy(), sigma=1.0, axes=(1, 2), mode="nearest", radius=3)
    np.testing.assert_allclose(out[0].numpy(), expected, atol=1e-5)


def test_cutout_masks_one_rectangle_of_the_stated_size() -> None:
    images = noise(200, 60, 80)
    out, source = run(images, only(cutout=1.0)), plain(images)
    for image, before in zip(out, source, strict=True):
        masked = (image != before).any(0)
        rows, columns = masked.any(1).nonzero().ravel(), masked.any(0).nonzero().ravel()
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert 0.015 < height * width / 4800 < 0.16
        assert 0.28 < height / width < 3.6
        box = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == box[:, :1, :1]).all()
        torch.testing.assert_close(box[:, 0, 0], before.mean((1, 2)), rtol=0, atol=0.06)
        assert masked.sum() > 0.9 * height * width


def test_cutout_takes_the_colour_that_the_image_has_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, brightness=0.0, cutout=0.0, hue=1.0)
    uniform = torch.tensor([180, 120, 90], dtype=torch.uint8).expand(2, 30, 40, 3)
    out = run(uniform, only(brightness=0.5, hue=0.1, cutout=0.5))
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (5, 1)])
@pytest.mark.parametrize("policy", POLICIES)
def test_tiny_pictures_pass(size: tuple[int, int], policy: Any) -> None:
    out = run(noise(10, *size), AugmentSpec(policy=policy, blur=1.0, cutout=1.0))
    assert out.shape == (10, 3, *size)
    assert torch.isfinite(out).all()
    assert run(noise(10, *size)[:0], AugmentSpec(policy=policy)).shape == (0, 3, *size)


def test_autocast_does_not_touch_it() -> None:
    images = noise(4)
    expected = run(images, AugmentSpec(policy="strong"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(run(images, AugmentSpec(policy="strong")), expected)


def test_given_fields_win_over_the_policy() -> None:
    assert resolve(AugmentSpec(policy="standard")) == POLICIES["standard"]
    given = resolve(AugmentSpec(policy="standard", hflip=0, scale=(1.0, 1.0), rotate_deg=90))
    assert (given.hflip, given.scale, given.rotate_deg, given.affine_deg) == (0, (1.0, 1.0), 90, 0)
    assert given.vflip == 0.3
    assert resolve(AugmentSpec(policy="none", hue=0.1)).hue == 0.1


def eye(batch: int) -> Tensor:
    return torch.eye(batch)


def test_mix_off_returns_what_it_got() -> None:
    batch, target = {"image": torch.rand(4, 3, 5, 6)}, eye(4)
    assert mix(batch, target, AugmentSpec(), seed=1, epoch=0, step=0) == (batch, target)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([(0.2, 0.0), (0.0, 1.0), (0.4, 1.0)]), st.integers(1, 9))
def test_mixed_images_and_targets_keep_the_same_shares(step: int, beta: tuple[float, float], batch: int) -> None:
    """Each image is one constant, its own number, so that the image's mean says what it was mixed from."""
    values = torch.arange(1.0, batch + 1)
    images, target = values[:, None, None, None].expand(batch, 3, 8, 10).clone(), eye(batch)
    kept = images.clone()
    changed, mixed = mix({"image": images}, target, AugmentSpec(mixup=beta[0], cutmix=beta[1]), seed=1, epoch=0, step=step)
    out = changed["image"]
    assert torch.equal(images, kept)
    assert torch.equal(target, eye(batch))
    torch.testing.assert_close(mixed.sum(1), torch.ones(batch))
    assert mixed.min() >= 0
    torch.testing.assert_close(out.mean((1, 2, 3)), mixed @ values, rtol=1e-4, atol=1e-4)
    again = mix({"image": images}, target, AugmentSpec(mixup=beta[0], cutmix=beta[1]), seed=1, epoch=0, step=step)
    assert torch.equal(out, again[0]["image"])
    assert torch.equal(mixed, again[1])


def shares(spec: AugmentSpec, steps: int) -> tuple[np.ndarray[Any, Any], int]:
    """The smaller share of the first image's target at each step where it has two parents, and how many steps pasted a box."""
    images, target = torch.arange(8.0)[:, None, None, None].expand(8, 1, 16, 16).clone(), eye(8)
    values, pasted = [], 0
    for step in range(steps):
        changed, mixed = mix({"image": images}, target, spec, seed=5, epoch=1, step=step)
        out = changed["image"]
        if mixed[0].count_nonzero() == 2:
            values.append(float(mixed[0, 0]))
        pasted += int(all(len(image.unique()) <= 2 for image in out) and any(len(image.unique()) == 2 for image in out))
    return np.array(values), pasted


def test_mixups_lambda_is_beta_distributed() -> None:
    stats = pytest.importorskip("scipy.stats")
    values, pasted = shares(AugmentSpec(mixup=0.4), 800)
    inside = (values > 1e-6) & (values < 1 - 1e-6)  # float32 loses the ends
    assert pasted == 0
    assert stats.kstest(values[inside], "beta", args=(0.4, 0.4)).pvalue > 1e-3


def test_a_fair_coin_chooses_where_both_are_on() -> None:
    _, pasted = shares(AugmentSpec(mixup=1.0, cutmix=1.0), 300)
    assert 110 < pasted < 190
    assert shares(AugmentSpec(cutmix=1.0), 100)[1] > 90


def test_partners_change_and_are_a_permutation() -> None:
    images = torch.arange(6.0)[:, None, None, None].expand(6, 1, 4, 4)
    seen = set()
    for step in range(30):
        _, mixed = mix({"image": images}, eye(6), AugmentSpec(mixup=1.0), seed=1, epoch=0, step=step)
        torch.testing.assert_close(mixed.sum(0), torch.ones(6))
        seen.add(tuple(mixed.fill_diagonal_(0).argmax(1).tolist()))
    assert len(seen) > 25


def test_every_input_is_mixed_by_its_name() -> None:
    """One lambda, one partner and one box for both images and the metadata; an optional image is there where both have it."""
    values = torch.arange(1.0, 7)
    images = values[:, None, None, None].expand(6, 3, 8, 10)
    present = torch.tensor([[True], [True], [False], [True], [False], [True]])
    batch = {"image": images, "image_2": 10 * images, "present": present, "metadata": values[:, None].expand(6, 2)}
    for spec in (AugmentSpec(mixup=0.4), AugmentSpec(cutmix=1.0)):
        for step in range(12):
            out, mixed = mix(batch, eye(6), spec, seed=3, epoch=0, step=step)
            torch.testing.assert_close(out["image"] * 10, out["image_2"])
            torch.testing.assert_close(out["metadata"][:, 0], mixed @ values)
            parents = mixed > 0
            expected = torch.stack([present[row, 0].all() for row in parents])
            assert torch.equal(out["present"][:, 0] | ~expected, torch.ones(6, dtype=torch.bool))
            assert not (out["present"][:, 0] & ~present[:, 0]).any()
            assert torch.equal(batch["present"], present), "the batch stays as it was"


def test_optional_inputs_are_hidden_by_draw_position() -> None:
    encoder = fit_encoder({"age": [40, 60, 50], "sex": ["male", "female", "male"]})
    rows = torch.from_numpy(encoder({"age": [40] * 400, "sex": ["male"] * 400}))
    image = torch.zeros(400, 1, 1, 3, dtype=torch.uint8)
    batch = {"image": image, "image_2": image, "present": torch.ones(400, 1, dtype=torch.bool), "metadata": rows}
    address = {"seed": 1, "epoch": 0, "positions_B": np.arange(400)}
    hidden = hide_inputs(batch, {"image_2": 0.25, "metadata": 0.5}, encoder=encoder, **address)
    assert 0.65 < float(hidden["present"].float().mean()) < 0.85
    assert 0.4 < float((hidden["metadata"][:, 1] == 1).float().mean()) < 0.6, "the indicator of a missing age"
    later = hide_inputs(
        {name: values[200:] for name, values in batch.items()}, {"image_2": 0.25, "metadata": 0.5}, encoder=encoder,
        **{**address, "positions_B": np.arange(200, 400)},
    )  # fmt: skip
    assert torch.equal(later["present"], hidden["present"][200:]), "neither batch nor worker changes a draw"
    assert torch.equal(later["metadata"], hidden["metadata"][200:])
    kept = hide_inputs(batch, {}, encoder=encoder, **address)
    assert kept["present"].all()
    assert torch.equal(kept["metadata"], rows)
