"""Bytes to upright RGB pixels: the one decoding that training, evaluation and serving share. numpy and Pillow only."""

# Shapes: H height, W width.

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import struct
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    ImageCms,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from dermalyze.errors import MissingExtraError
from dermalyze.imaging.effort import refuse_effort, refuse_scans
from dermalyze.imaging.image import MAX_PIXELS, Decoded, ImageError, check_size
from dermalyze.imaging.preprocess import Preprocessing as Preprocessing
from dermalyze.imaging.preprocess import normalize as normalize
from dermalyze.imaging.preprocess import to_size as to_size

SERVING_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "AVIF")
OPTIONAL_FORMATS = {"HEIC": "pi_heif", "DICOM": "pydicom"}
"""Those that are read where a module is installed; it has an extra of the format's name."""
PREPARE_FORMATS = (*SERVING_FORMATS, "TIFF", *OPTIONAL_FORMATS)

RAW = "a camera's raw file; export it as JPEG from the camera's program"

# Plugins are called by name, never by Pillow's search, which also knows formats that start other programs (EPS).
_OPENERS: dict[str, Callable[..., Any]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "HEIC": lambda stream, name: importlib.import_module("pi_heif").HeifImageFile(stream, name),
}
_MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_STRANGERS = {
    b"GIF8": "a GIF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "a PDF document; export the image in it",
    b"8BPS": "a Photoshop file",
    b"SIMPLE  =": "a FITS file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip file",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000",
    b"\xffO\xffQ": "a JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL",
    b"\xff\n": "a JPEG XL",
    **dict.fromkeys((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\x00", b"FOVb", b"MRM\x00"), RAW),
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": RAW}
_BRANDS |= dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC")
"""Of ISO base media files (ISO/IEC 14496-12), whose first box says what they are."""
_THUMBNAIL_TAG, _DNG_TAG = 254, 50706
_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "YCbCr")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP_GREY = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
DARK_LEVELS = 32
"""Of 256: darker than this is a whole image of 16 bits only where no more than 13 of them are used."""
SAME_LEVELS = 2
"""A profile that moves no color by more is sRGB, written by another program."""
_GPS_IFD, _ARTIST, _DESCRIPTION, _OWNER = 0x8825, 0x013B, 0x010E, 0xA430


def decode(
    data: bytes,
    *,
    formats: tuple[str, ...] = SERVING_FORMATS,
    max_pixels: int = MAX_PIXELS,
    least: Callable[[int, int], tuple[int, int]] | None = None,
) -> Decoded:
    """Decode one image file to upright 8-bit RGB.

    EXIF orientation is applied; alpha is composited on white; gray of more than 8 bits is scaled by the image's own range;
    colors with another ICC profile than sRGB are converted to it; CMYK goes through its ICC profile; DICOM as
    `dermalyze.imaging.dicom` says. What cannot be shown faithfully is an error, and the size is checked in the header.

    Args:
        data: the file.
        formats: the kinds accepted, of `PREPARE_FORMATS`.
        max_pixels: largest H * W.
        least: takes the upright (width, height) and gives those that are needed, as `Preprocessing.least`; a JPEG is then
            decoded at 1/2, 1/4 or 1/8 of its size (by its DCT coefficients, which is faster), never below that. None: in full.

    Raises:
        ImageError: empty, truncated, damaged, too large, made of too many pieces, of another kind, animated, or CMYK without a
            profile.
        PersonalDataError: a DICOM file that can name a patient.
        MissingExtraError: a DICOM or HEIC file, and what reads it is not installed.

    >>> buffer = io.BytesIO()
    >>> Image.new("RGBA", (2, 1), (255, 0, 0, 0)).save(buffer, "PNG")
    >>> image = decode(buffer.getvalue())
    >>> image.pixels.tolist(), image.mode, image.notes
    ([[[255, 255, 255], [255, 255, 255]]], 'RGBA', ('alpha composited on white',))
    """
    kind = sniff(data, formats)
    extra = OPTIONAL_FORMATS.get(kind)
    if kind not in formats:
        remedy = f" or install dermalyze[{kind.lower()}]" if extra is not None and find_spec(extra) is None else ""
        raise ImageError(f"{kind} image; accepted are {', '.join(formats)}; convert it{remedy}")
    if extra is not None and find_spec(extra) is None:
        raise MissingExtraError(f"reading {kind} files", kind.lower())
    scans = refuse_effort(data, kind)
    if kind == "DICOM":
        from dermalyze.imaging.dicom import decode_dicom

        return decode_dicom(data, max_pixels=max_pixels)
    if kind == "WEBP":  # Pillow allocates the whole canvas on opening
        check_size(*_webp_size(data), max_pixels)
    try:
        with _OPENERS[kind](io.BytesIO(data), "") as image:
            check_size(image.width, image.height, max_pixels)
            refuse_scans(scans, image.width * image.height)
            return _to_rgb(image, str(image.format), least)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise a dozen kinds on damaged files
        raise ImageError(_damage(error)) from error


def sniff(data: bytes, formats: tuple[str, ...] = PREPARE_FORMATS) -> str:
    """The kind of an image file by its first bytes, one of `PREPARE_FORMATS`; `formats` are those a refusal names.

    Raises:
        ImageError: empty, or not such a file; says what it is where that can be told.

    >>> sniff(b"\\xff\\xd8\\xff\\xe0")
    'JPEG'
    """
    if not data:
        raise ImageError("empty file (0 bytes)")
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp" and (brand := _brand(data)) in PREPARE_FORMATS:
        return brand
    if data[128:132] == b"DICM":
        return "DICOM"
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ImageError("an HTML page, not an image; download it again")
    if b"<svg" in start:
        raise ImageError("an SVG drawing, not a photograph")
    named = next((name for magic, name in _STRANGERS.items() if data.startswith(magic)), "not an image")
    what = _brand(data) or named
    raise ImageError(f"{what}; accepted are {', '.join(formats)}")


@cache  # a search of the folders of packages, otherwise one per image
def find_spec(module: str) -> object | None:
    """Whether a module is installed, without importing it."""
    return importlib.util.find_spec(module)


def pixel_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 over the shape and the RGB bytes: equal for equal images, however they were stored.

    >>> pixel_sha256(np.zeros((1, 2, 3), np.uint8)) == pixel_sha256(np.zeros((2, 1, 3), np.uint8))
    False
    """
    digest = hashlib.sha256(struct.pack("<3I", *pixels.shape))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def _brand(data: bytes) -> str:
    """What an ISO base media file holds by its brands, the major one first; "" where it is none or unknown.

    >>> _brand(b"\\0\\0\\0\\x18ftypmif1\\0\\0\\0\\0avifmif1")
    'AVIF'
    """
    if data[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, end, 4))]
    if brands[0] in (b"mif1", b"msf1"):  # any image: the compatible brands tell the codec
        brands = [*brands[1:], brands[0]]
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    head = data[12:30].ljust(18, b"\0")
    if head[:4] == b"VP8X":
        return 1 + int.from_bytes(head[12:15], "little"), 1 + int.from_bytes(head[15:18], "little")
    if head[:4] == b"VP8L":
        bits = int.from_bytes(head[9:13], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if head[:4] == b"VP8 ":
        return int.from_bytes(head[14:16], "little") & 0x3FFF, int.from_bytes(head[16:18], "little") & 0x3FFF
    raise ImageError("damaged file")


def _damage(error: Exception) -> str:
    """A reason without numbers, so that equal faults count as one."""
    text = str(error).lower()
    if "truncated" in text or "eof" in text or isinstance(error, EOFError):
        return "truncated file"
    return "damaged file"


def _to_rgb(image: Any, kind: str, least: Callable[[int, int], tuple[int, int]] | None) -> Decoded:
    notes: list[str] = []
    if kind == "MPO":
        notes.append("first frame of a multi-image file")
    elif getattr(image, "n_frames", 1) != 1:
        raise ImageError("several frames (animated or multi-page); save one frame")
    mode, profile = str(image.mode), image.info.get("icc_profile")
    if kind == "TIFF" and (_DNG_TAG in image.tag_v2 or int(image.tag_v2.get(_THUMBNAIL_TAG, 0)) & 1):
        raise ImageError(f"TIFF whose first image is a thumbnail: {RAW}")
    deep = mode in ("RGB", "RGBA") and any(";16" in str(tile[-1]) for tile in image.tile)  # of which Pillow keeps the upper 8
    turned = _is_turned(image, notes)  # before loading: Pillow turns a TIFF by itself, then forgets that it did
    if least is not None:
        _reduce(image, bool(turned), least)
    image.load()
    if deep:
        if max(high for _, high in image.getextrema()[:3]) < DARK_LEVELS:
            raise ImageError("color of 16 bits whose values use the lower ones alone; scale it to 8 bits")
        notes.append("color of 16 bits reduced to 8")
    personal = _personal(image)
    if turned:  # it would copy one that is upright
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright by EXIF")
    if mode in _DEEP_GREY:
        rgb = Image.fromarray(_scale_grey(np.asarray(image), notes)).convert("RGB")
    elif mode in _WITH_ALPHA or (mode in _EIGHT_BIT and "transparency" in image.info):
        rgba = image.convert("RGBA")
        if rgba.getextrema()[3][0] < 255:
            notes.append("alpha composited on white")
        rgb = _to_srgb(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"), profile, notes)
    elif mode in _EIGHT_BIT:
        rgb = _to_srgb(image if image.mode == "RGB" else image.convert("RGB"), profile, notes)  # convert would copy
    elif mode == "CMYK":
        rgb = _from_cmyk(image, profile)
        notes.append("CMYK through its ICC profile")
    else:
        raise ImageError(f"pixel layout {mode} is not read; save as RGB")
    return Decoded(rgb, mode, kind, tuple(notes), personal)


def _is_turned(image: Any, notes: list[str]) -> bool | None:
    """Whether the image is stored in another orientation than it was taken; None where its EXIF block is damaged."""
    try:
        return image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:  # no reason to lose the image
        notes.append("EXIF unreadable, orientation unknown")
        return None


def _reduce(image: Any, turned: bool, least: Callable[[int, int], tuple[int, int]]) -> None:
    """Have a JPEG decoded at the smallest scale that is not below what is needed; of another kind of file, nothing."""
    sideways = turned and image.getexif().get(0x0112) in range(5, 9)
    width, height = image.size[::-1] if sideways else image.size
    needed = least(width, height)
    image.draft(None, needed[::-1] if sideways else needed)


def _scale_grey(values_HW: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    """Gray of more than 8 bits: the image's own lowest..highest becomes 0..255; a flat image keeps its level of 65535."""
    values = values_HW.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    notes.append("gray of more than 8 bits scaled by its range")
    if low == high:
        low, high = 0.0, 65535.0
    return np.clip(np.rint((values - low) * (255 / (high - low))), 0, 255).astype(np.uint8)


def _to_srgb(rgb: Any, profile: bytes | None, notes: list[str]) -> Any:
    """Equal colors get equal numbers, whatever profile they are stored with; sRGB and what has no profile stay as they are."""
    if not profile:
        return rgb
    transform, problem = _srgb_transform(profile)
    if problem:
        notes.append(problem)
    if transform is None:
        return rgb
    notes.append("colors converted from its ICC profile to sRGB")
    return ImageCms.applyTransform(rgb, transform)


@lru_cache(maxsize=8)  # the images of a set have few
def _srgb_transform(profile: bytes) -> tuple[Any | None, str]:
    """What converts to sRGB, None where nothing is to be converted, and what is wrong with the profile."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != "RGB":
            return None, ""
        # without lcms's cache of one pixel, which threads would share
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", flags=ImageCms.Flags.NOCACHE)
        levels = np.linspace(0, 255, 9).astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
        moved = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform)).astype(int)
        return (None if np.abs(moved - grid).max() <= SAME_LEVELS else transform), ""
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None, "its ICC profile is unusable, taken as sRGB"


def _from_cmyk(image: Any, profile: bytes | None) -> Any:
    if not profile:
        raise ImageError("CMYK without an ICC profile; save as RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ImageError("CMYK with an unusable ICC profile; save as RGB") from error


def _personal(image: Any) -> tuple[str, ...]:
    """Kinds of metadata that can name a person or a place."""
    info, found = image.info, set()
    if info.get("exif") or "Raw profile type exif" in info:
        found.add("exif")
    try:
        exif = image.getexif()
        if exif.get_ifd(_GPS_IFD):
            found.add("gps")
        if any(exif.get(tag) for tag in (_ARTIST, _DESCRIPTION, _OWNER)):
            found.add("exif_text")
    except Exception:  # damaged, and counted as present
        found.add("exif")
    found |= {name for name, key in (("comment", "comment"), ("xmp", "xmp"), ("iptc", "photoshop")) if info.get(key)}
    texts = getattr(image, "text", None) or {}
    if "XML:com.adobe.xmp" in texts:
        found.add("xmp")
    if any(key != "XML:com.adobe.xmp" for key in texts):
        found.add("png_text")
    return tuple(sorted(found))
