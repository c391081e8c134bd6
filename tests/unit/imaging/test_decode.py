"""Decoding and preprocessing: every oddity of FAULTS.md 9, 12, 13, 14, and the arithmetic of the resize."""

import base64
import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, TiffImagePlugin

from dermalyze.config.data import PreprocessSpec
from dermalyze.errors import MissingExtraError, ModelError
from dermalyze.imaging.decode import (
    PREPARE_FORMATS,
    SERVING_FORMATS,
    Preprocessing,
    decode,
    normalize,
    pixel_sha256,
    sniff,
    to_size,
)
from dermalyze.imaging.image import ImageError

HALF = (0.5, 0.5, 0.5)


def picture(height: int = 12, width: int = 20, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def preprocessing(kind: str = "squash", height: int = 8, width: int = 8, crop_ratio: float = 0.875) -> Preprocessing:
    return Preprocessing(kind, height, width, crop_ratio, HALF, HALF)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels_back(kind):
    image = decode(saved(picture(), kind), formats=PREPARE_FORMATS)
    assert np.array_equal(image.pixels, np.asarray(picture()))
    assert (image.mode, image.format, image.notes, image.personal) == ("RGB", kind, (), ())


def test_webp_and_jpeg_are_read():
    assert np.array_equal(decode(saved(picture(), "WEBP", lossless=True)).pixels, np.asarray(picture()))
    assert decode(saved(picture(), "JPEG")).pixels.shape == (12, 20, 3)


def test_tiff_is_for_prepare_alone():
    with pytest.raises(ImageError, match=r"TIFF image; accepted are JPEG, PNG, WEBP, BMP, AVIF; convert it$"):
        decode(saved(picture(), "TIFF"), formats=SERVING_FORMATS)


def test_dicom_is_for_prepare_alone():
    with pytest.raises(ImageError, match=r"DICOM image; accepted are JPEG, PNG, WEBP, BMP, AVIF; convert it$"):
        decode(bytes(128) + b"DICM", formats=SERVING_FORMATS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
        (b"\xef\xbb\xbf <svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(30), "PostScript"),
        (b"8BPS" + bytes(30), "a Photoshop file"),
        (b"SIMPLE  =                    T", "a FITS file"),
        (b"%PDF-1.7", "a PDF document; export the image in it; accepted are JPEG"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL; accepted"),
        (b"\xff\n" + bytes(30), "a JPEG XL"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's raw file; export it as JPEG from the camera's program"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "a camera's raw file"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41", "not an image"),  # a film
        (b"PK\x03\x04" + bytes(30), "a zip archive"),
        (b"plain text", "not an image"),
    ],
)
def test_other_things_are_named(data, reason):
    with pytest.raises(ImageError, match=reason):
        decode(data, formats=PREPARE_FORMATS)


HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAAAERA"
    "AAEAAQAAAAABoAABAAAAAAAAAEYAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAA"
    "AHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq"
    "rprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAEAAAAAEAAAAM"
    "AAAAAf///9AAAAAC////zAAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAATm1kYXQAAABCKAGvCchoSB498cDE9C9h"
    "VkBxV7h/t96JNhrv2+L79nP3fkBy1Gh+/6V0/v/+hpqCes9Azb+BF+SVJUCq0Q9Ccyi4"
)
"""16 x 12 px, red from 0 on the left to 255 on the right, green 90, blue 40; written by libheif."""


def test_heic_is_read_with_its_extra():
    with pytest.raises(ImageError, match=r"HEIC image; accepted are JPEG, PNG, WEBP, BMP, AVIF; convert it$"):
        decode(HEIC)
    image = decode(HEIC, formats=PREPARE_FORMATS)
    assert (image.pixels.shape, image.mode, image.format) == ((12, 16, 3), "RGB", "HEIF")
    expected = np.broadcast_to(np.stack([np.linspace(0, 255, 16), np.full(16, 90), np.full(16, 40)], axis=-1), (12, 16, 3))
    assert np.abs(image.pixels - expected).mean() < 8


def test_without_the_extra_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr("dermalyze.imaging.decode.find_spec", lambda module: None)
    for data, extra in ((HEIC, "heic"), (bytes(128) + b"DICM", "dicom")):
        with pytest.raises(ImageError, match=rf"convert it or install dermalyze\[{extra}\]$"):
            decode(data)
        with pytest.raises(MissingExtraError, match=rf"pip install 'dermalyze\[{extra}\]'"):
            decode(data, formats=PREPARE_FORMATS)


def test_avif_is_read_with_its_colors_and_its_turn():
    image = decode(saved(picture(), "AVIF", quality=100, subsampling="4:4:4"))
    assert image.format == "AVIF"
    assert np.abs(image.pixels - np.asarray(picture()).astype(int)).mean() < 3
    turned = Image.Exif()
    turned[0x0112] = 6
    image = decode(saved(picture(), "AVIF", exif=turned.tobytes()))
    assert image.pixels.shape == (20, 12, 3)
    assert "turned upright by EXIF" in image.notes
    with pytest.raises(ImageError, match="more than 100 pixels"):
        decode(saved(picture(), "AVIF"), max_pixels=100)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\x01\x04\x00\x00"}])
def test_a_raw_file_is_not_read_as_its_thumbnail(tags):
    extra = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        extra[tag] = value
    with pytest.raises(ImageError, match="first image is a thumbnail: a camera's raw file; export it as JPEG"):
        decode(saved(picture(), "TIFF", tiffinfo=extra), formats=PREPARE_FORMATS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_truncated_and_garbled_files_are_refused(kind):
    whole = saved(picture(60, 80), kind)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        decode(whole[: len(whole) // 2], formats=PREPARE_FORMATS)
    with pytest.raises(ImageError):
        decode(whole[:14] + bytes(200), formats=PREPARE_FORMATS)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIC"]),
    st.integers(0, 10_000),
    st.binary(min_size=1, max_size=8),
)
def test_any_damage_gives_pixels_or_an_image_error(kind, at, noise):
    whole = bytearray(HEIC if kind == "HEIC" else saved(picture(), kind))
    at %= len(whole)
    whole[at : at + len(noise)] = noise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = decode(bytes(whole), formats=PREPARE_FORMATS, max_pixels=100_000)
        except ImageError:
            return
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape[2] == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_are_the_same_picture(kind, orientation):
    upright = ImageOps.exif_transpose(picture(16, 32))
    inverse = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    stored = upright if inverse is None else upright.transpose(turns[inverse])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    image = decode(saved(stored, kind, exif=exif, **options), formats=PREPARE_FORMATS)
    assert image.pixels.shape == (16, 32, 3)
    distance = np.abs(image.pixels.astype(int) - np.asarray(upright).astype(int))
    assert distance.max() <= (60 if kind == "JPEG" else 0)  # noise is hard on JPEG; a wrong turn differs by up to 255
    assert distance.mean() <= 8
    assert image.notes == (() if orientation == 1 else ("turned upright by EXIF",))


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_impossible_orientation_is_none(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(saved(picture(), "PNG", exif=exif))
    assert np.array_equal(image.pixels, np.asarray(picture()))
    assert image.notes == ()


def test_sixteen_bit_grey_is_scaled_by_its_range():
    ramp = np.linspace(100, 4095, 256).astype(np.uint16).reshape(16, 16)
    image = decode(saved(Image.fromarray(ramp), "PNG"))
    assert image.mode == "I;16"
    assert image.notes == ("gray of more than 8 bits scaled by its range",)
    expected = np.rint((ramp.astype(float) - 100) * 255 / 3995)
    assert np.array_equal(image.pixels, np.repeat(expected[:, :, None], 3, 2))
    flat = decode(saved(Image.fromarray(np.full((4, 4), 32768, np.uint16)), "PNG"))
    assert np.unique(flat.pixels).tolist() == [128]


def test_float_and_32_bit_tiff():
    values = np.array([[0.0, 0.5], [1.0, 0.25]], np.float32)
    image = decode(saved(Image.fromarray(values), "TIFF"), formats=PREPARE_FORMATS)
    assert image.pixels[..., 0].tolist() == [[0, 128], [255, 64]]
    with pytest.raises(ImageError, match="NaN"):
        decode(saved(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), formats=PREPARE_FORMATS)


def test_alpha_is_composited_on_white():
    half = Image.new("RGBA", (2, 2), (200, 0, 0, 128))
    image = decode(saved(half))
    assert image.notes == ("alpha composited on white",)
    assert image.pixels[0, 0].tolist() == pytest.approx([227, 127, 127], abs=1)
    opaque = decode(saved(Image.new("RGBA", (2, 2), (200, 0, 0, 255))))
    assert opaque.notes == ()
    assert opaque.pixels[0, 0].tolist() == [200, 0, 0]


def test_palette_with_and_without_transparency():
    palette = picture().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    plain = decode(saved(palette))
    assert plain.mode == "P"
    assert np.array_equal(plain.pixels, np.asarray(palette.convert("RGB")))
    see_through = decode(saved(palette, transparency=0))
    assert see_through.notes == ("alpha composited on white",)
    assert (see_through.pixels[np.asarray(palette) == 0] == 255).all()


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_becomes_rgb(mode):
    image = decode(saved(picture().convert(mode)))
    assert image.mode == mode
    assert (image.pixels[..., 0] == image.pixels[..., 1]).all()


def cmyk_profile() -> bytes:
    """A small CMYK printer profile: one lut8 of two grid points, paper white to black ink."""
    corners = []
    for ink in range(16):
        cyan, magenta, yellow, key = ((ink >> shift) & 1 for shift in (3, 2, 1, 0))
        light = 0 if key else 100 - 25 * cyan - 35 * magenta - 5 * yellow
        corners += [
            light * 255 // 100,
            128 + (0 if key else 60 * magenta - 40 * cyan),
            128 + (0 if key else 80 * yellow - 40 * cyan),
        ]
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + bytes(corners) + ramp * 3
    head = struct.pack(">I4sI4s4s4s", 0, b"\0\0\0\0", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    body = head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut
    return struct.pack(">I", len(body)) + body[4:]


def test_cmyk_goes_through_its_profile_or_is_refused():
    inks = Image.new("CMYK", (32, 16), (0, 0, 0, 0))
    inks.paste((0, 0, 0, 255), (0, 0, 16, 16))
    with pytest.raises(ImageError, match="CMYK without an ICC profile"):
        decode(saved(inks, "JPEG"))
    with pytest.raises(ImageError, match="unusable ICC profile"):
        decode(saved(inks, "JPEG", icc_profile=b"nonsense" * 40))
    image = decode(saved(inks, "JPEG", icc_profile=cmyk_profile()))
    assert image.notes == ("CMYK through its ICC profile",)
    assert image.pixels[8, 4].max() < 20
    assert image.pixels[8, 28].min() > 235


def test_animations_and_pages_are_refused():
    frames = [picture(seed=seed) for seed in range(3)]
    for kind in ("PNG", "WEBP", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match="several frames"):
            decode(data, formats=PREPARE_FORMATS)
    with pytest.raises(ImageError, match="a GIF"):
        decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), formats=PREPARE_FORMATS)


def test_a_phone_s_mpo_gives_its_first_frame():
    first, second = Image.new("RGB", (16, 16), (200, 10, 10)), Image.new("RGB", (16, 16), (10, 10, 200))
    image = decode(saved(first, "MPO", save_all=True, append_images=[second]))
    assert image.format == "MPO"
    assert image.notes == ("first frame of a multi-image file",)
    assert image.pixels[8, 8].tolist() == pytest.approx([200, 10, 10], abs=4)


def png_header(width: int, height: int, bits: int = 8, colour: int = 2, idat: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def test_size_is_judged_from_the_header():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own check would warn, once and only once
        for data in (
            png_header(12000, 12000),
            png_header(50000, 50000, 1, 0),
            b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00" + b"\xfe\x3f\x00\xfe\x3f\x00",
        ):
            with pytest.raises(ImageError, match="more than 64000000 pixels"):
                decode(data)
        with pytest.raises(ImageError, match="more than 239 pixels"):
            decode(saved(picture(12, 20)), max_pixels=239)
    assert decode(saved(picture(12, 20)), max_pixels=240).pixels.shape == (12, 20, 3)


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_size_from_the_header_is_the_size(lossless):
    for edge in (1, 2, 15):
        data = saved(picture(edge, 2 * edge), "WEBP", lossless=lossless)
        assert decode(data, max_pixels=2 * edge * edge).pixels.shape == (edge, 2 * edge, 3)
        with pytest.raises(ImageError, match="more than"):
            decode(data, max_pixels=2 * edge * edge - 1)


def test_a_text_bomb_in_a_png_is_refused():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * 50_000_000, zip=True)
    with pytest.raises(ImageError, match="damaged"):
        decode(saved(picture(), pnginfo=info))


def test_personal_metadata_is_told_but_not_kept():
    exif = Image.Exif()
    exif[0x013B] = "Dr Jane Doe"
    exif[0x010E] = "MRN 123456"
    exif.get_ifd(0x8825)[1] = "N"
    jpeg = decode(saved(picture(), "JPEG", exif=exif, comment=b"MRN 123456", xmp=b"<x:xmpmeta/>"))
    assert jpeg.personal == ("comment", "exif", "exif_text", "gps", "xmp")
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Jane Doe")
    assert decode(saved(picture(), pnginfo=info)).personal == ("png_text",)
    assert "Doe" not in repr(jpeg)
    assert "123456" not in repr(jpeg)


def test_a_damaged_exif_block_costs_the_orientation_only():
    data = saved(picture(), "PNG", exif=b"Exif\x00\x00nonsense")
    image = decode(data)
    assert np.array_equal(image.pixels, np.asarray(picture()))
    assert image.notes == ("EXIF unreadable, orientation unknown",)


def test_pixel_hash_is_of_the_picture():
    png, bmp = decode(saved(picture())), decode(saved(picture(), "BMP"))
    assert pixel_sha256(png.pixels) == pixel_sha256(bmp.pixels)
    assert pixel_sha256(png.pixels) != pixel_sha256(png.pixels[::-1])
    assert pixel_sha256(png.pixels[::-1]) == pixel_sha256(png.pixels[::-1].copy())
    assert sniff(saved(picture(), "BMP")) == "BMP"


def test_squash_is_pillow_s_bilinear_resize():
    pixels = np.asarray(picture(40, 60))
    expected = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.Resampling.BILINEAR))
    assert np.array_equal(to_size(pixels, preprocessing("squash", 16, 24)), expected)


def test_reducing_averages():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = to_size(stripes, preprocessing("squash", 8, 8))
    assert small.min() > 110
    assert small.max() < 145


def test_resize_crop_is_torchvision_s():
    """Resize(256) and CenterCrop(224) of torchvision by its own arithmetic, at an eighth of the size."""
    for height, width in ((40, 60), (60, 40), (50, 50), (33, 101)):
        pixels = np.asarray(picture(height, width))
        size = (int(32 * width / height), 32) if height <= width else (32, int(32 * height / width))
        left, top = round((size[0] - 28) / 2.0), round((size[1] - 28) / 2.0)
        expected = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR).crop((left, top, left + 28, top + 28))
        assert np.array_equal(to_size(pixels, preprocessing("resize_crop", 28, 28, 0.875)), np.asarray(expected))


def test_pad_keeps_the_frame_between_black_bars():
    wide = to_size(np.full((10, 40, 3), 7, np.uint8), preprocessing("pad", 16, 16))
    assert wide[:, 0, 0].tolist() == [0] * 6 + [7] * 4 + [0] * 6
    tall = to_size(np.full((40, 10, 3), 7, np.uint8), preprocessing("pad", 16, 16))
    assert np.array_equal(tall, wide.transpose(1, 0, 2))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["squash", "resize_crop", "pad"]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(8, 40),
    st.integers(8, 40),
    st.floats(0.1, 1),
)
def test_any_image_gets_the_size_and_a_flat_one_its_colour(kind, height, width, to_height, to_width, ratio):
    sized = to_size(np.full((height, width, 3), 90, np.uint8), preprocessing(kind, to_height, to_width, ratio))
    assert sized.shape == (to_height, to_width, 3)
    assert sized.dtype == np.uint8
    assert set(np.unique(sized)) <= ({0, 90} if kind == "pad" else {90})


def test_normalize():
    p = Preprocessing("squash", 8, 8, 1.0, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    values = normalize(pixels, p)
    assert values.shape == (2, 3, 8, 8)
    assert values.dtype == np.float32
    expected = (pixels.astype(float) / 255 - np.array(p.mean)) / np.array(p.std)
    assert np.abs(values - expected.transpose(0, 3, 1, 2)).max() < 1e-6


def test_preprocessing_round_trip_and_refusals():
    p = Preprocessing.resolve(PreprocessSpec(kind="pad", size=(24, 32)), size=(224, 224), mean=HALF, std=HALF)
    assert (p.height, p.width, p.mean) == (24, 32, HALF)
    assert Preprocessing.from_dict(p.as_dict()) == p
    own = Preprocessing.resolve(PreprocessSpec(mean=(0.1, 0.2, 0.3)), size=(64, 48), mean=HALF, std=HALF)
    assert (own.height, own.width, own.mean, own.std) == (64, 48, (0.1, 0.2, 0.3), HALF)
    good = p.as_dict()
    for change in (
        {"kind": "stretch"},
        {"kind": []},
        {"height": 0},
        {"height": 24.0},
        {"width": True},
        {"std": [0.5, 0.5, 0.0]},
        {"mean": [0.5, 0.5]},
        {"mean": [float("nan")] * 3},
        {"crop_ratio": 0},
        {"more": 1},
    ):
        with pytest.raises(ModelError, match="preprocessing"):
            Preprocessing.from_dict({**good, **change})
    with pytest.raises(ModelError, match="must have"):
        Preprocessing.from_dict({})


def test_nothing_heavy_is_imported():
    code = "import sys, dermalyze.imaging.decode; print(sorted({'torch', 'timm', 'pandas', 'pyarrow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("size", [(1, 51), (2000, 20)])
def test_a_strip_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="is not a photograph; one edge may be at most 50 times the other"):
        decode(saved(picture(*size)))


def test_a_refusal_names_what_is_accepted_here() -> None:
    with pytest.raises(ImageError, match=r"not an image; accepted are JPEG, PNG, WEBP, BMP, AVIF$"):
        decode(b"hello there")
    with pytest.raises(ImageError, match=r"BMP, AVIF, TIFF, HEIC, DICOM$"):
        decode(b"hello there", formats=PREPARE_FORMATS)
