"""Bytes to RGB pixels to a network's input: the one path that training, evaluation and serving share. numpy and Pillow only."""

# Shapes: B images, H height, W width.

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageCms, ImageOps, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from dermalyze.config.data import PreprocessSpec
from dermalyze.core.errors import DataError, ModelError

SERVING_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
PREPARE_FORMATS = (*SERVING_FORMATS, "TIFF", "DICOM")
MAX_PIXELS = 64_000_000
MAX_ASPECT = 50  # longer edge / shorter edge; more is no photograph, and could take gigabytes to resize

# Plugins are called by name, never by Pillow's search, which also knows formats that start other programs (EPS).
_OPENERS: dict[str, Callable[..., Any]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
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
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"SIMPLE  =": "a FITS file",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip file",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000",
}
_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "YCbCr")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP_GREY = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_GPS_IFD, _ARTIST, _DESCRIPTION, _OWNER = 0x8825, 0x013B, 0x010E, 0xA430


class ImageError(DataError):
    """An image is refused; the message is a reason without name, path or content, fit to be counted and shown."""


class PersonalDataError(DataError):
    """An image is refused because it can name a patient. Not put into quarantine like a bad one: the set must be cleaned."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image as everything after sees it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        mode: Pillow's name of the stored pixel layout, as "RGB", "L", "I;16".
        format: "JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF" or "DICOM".
        notes: what was done beyond decoding, as "alpha composited on white".
        personal: kinds of metadata in the file that can identify a person, as "gps"; never their content.
    """

    pixels: NDArray[np.uint8]
    mode: str
    format: str
    notes: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()


def decode(data: bytes, *, formats: tuple[str, ...] = SERVING_FORMATS, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode one image file to upright 8-bit RGB.

    EXIF orientation is applied; alpha is composited on white; grey of more than 8 bits is scaled by the image's own range;
    CMYK goes through its ICC profile; DICOM as `dermalyze.data.dicom` says. What cannot be shown faithfully is refused, and the
    size is judged from the header.

    Args:
        data: the file.
        formats: the kinds accepted, of `PREPARE_FORMATS`.
        max_pixels: largest H * W.

    Raises:
        ImageError: empty, truncated, damaged, too large, of another kind, animated, or CMYK without a profile.
        PersonalDataError: a DICOM file that can name a patient.
        MissingExtraError: a DICOM file, and pydicom is not installed.

    >>> buffer = io.BytesIO()
    >>> Image.new("RGBA", (2, 1), (255, 0, 0, 0)).save(buffer, "PNG")
    >>> image = decode(buffer.getvalue())
    >>> image.pixels.tolist(), image.mode, image.notes
    ([[[255, 255, 255], [255, 255, 255]]], 'RGBA', ('alpha composited on white',))
    """
    kind = sniff(data, formats)
    if kind not in formats:
        raise ImageError(f"{kind} image; accepted are {', '.join(formats)}; convert it")
    if kind == "DICOM":
        from dermalyze.data.dicom import decode_dicom

        return decode_dicom(data, max_pixels=max_pixels)
    if kind == "WEBP":  # Pillow allocates the whole canvas on opening
        check_size(*_webp_size(data), max_pixels)
    try:
        with _OPENERS[kind](io.BytesIO(data), "") as image:
            check_size(image.width, image.height, max_pixels)
            return _to_rgb(image, str(image.format))
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
    if data[128:132] == b"DICM":
        return "DICOM"
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise ImageError("an HTML page, not an image; download it again")
    if b"<svg" in start:
        raise ImageError("an SVG drawing, not a photograph")
    what = next((name for magic, name in _STRANGERS.items() if data.startswith(magic)), "not an image")
    raise ImageError(f"{what}; accepted are {', '.join(formats)}")


def pixel_sha256(pixels: NDArray[np.uint8]) -> str:
    """SHA-256 over the shape and the RGB bytes: equal for equal pictures, however they were stored.

    >>> pixel_sha256(np.zeros((1, 2, 3), np.uint8)) == pixel_sha256(np.zeros((2, 1, 3), np.uint8))
    False
    """
    digest = hashlib.sha256(struct.pack("<3I", *pixels.shape))
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Judge an image's edges, in pixels, before anything is allocated for it.

    Raises:
        ImageError: an edge of 0, too many pixels, or a strip that is no photograph.

    >>> check_size(200, 150)
    """
    if width < 1 or height < 1:
        raise ImageError("no pixels (an edge of 0)")
    if width * height > max_pixels:
        raise ImageError(f"more than {max_pixels} pixels; make it smaller")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(f"{width} x {height} px is no photograph; one edge may be {MAX_ASPECT} times the other at most")


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


def _to_rgb(image: Any, kind: str) -> Decoded:
    notes: list[str] = []
    if kind == "MPO":
        notes.append("first frame of a multi-picture file")
    elif getattr(image, "n_frames", 1) != 1:
        raise ImageError("several frames (animated or multi-page); save one frame")
    mode, profile = str(image.mode), image.info.get("icc_profile")
    turned = _is_turned(image, notes)  # before loading: Pillow turns a TIFF by itself, then forgets that it did
    image.load()
    personal = _personal(image)
    if turned is not None:
        image = ImageOps.exif_transpose(image)
        notes += ["turned upright by EXIF"] if turned else []
    if mode in _DEEP_GREY:
        rgb = Image.fromarray(_scale_grey(np.asarray(image), notes)).convert("RGB")
    elif mode in _WITH_ALPHA or (mode in _EIGHT_BIT and "transparency" in image.info):
        rgba = image.convert("RGBA")
        if rgba.getextrema()[3][0] < 255:
            notes.append("alpha composited on white")
        rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    elif mode in _EIGHT_BIT:
        rgb = image.convert("RGB")
    elif mode == "CMYK":
        rgb = _from_cmyk(image, profile)
        notes.append("CMYK through its ICC profile")
    else:
        raise ImageError(f"pixel layout {mode} is not read; save as RGB")
    return Decoded(np.array(rgb, np.uint8), mode, kind, tuple(notes), personal)


def _is_turned(image: Any, notes: list[str]) -> bool | None:
    """Whether the image is stored in another orientation than it was taken; None where its EXIF block is damaged."""
    try:
        return image.getexif().get(0x0112, 1) in range(2, 9)
    except Exception:  # no reason to lose the picture
        notes.append("EXIF unreadable, orientation unknown")
        return None


def _scale_grey(values_HW: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    """Grey of more than 8 bits: the image's own lowest..highest becomes 0..255; a flat image keeps its level of 65535."""
    values = values_HW.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("NaN or infinite pixels")
    low, high = float(values.min()), float(values.max())
    notes.append("grey of more than 8 bits scaled by its range")
    if low == high:
        low, high = 0.0, 65535.0
    return np.clip(np.rint((values - low) * (255 / (high - low))), 0, 255).astype(np.uint8)


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


@dataclass(frozen=True)
class Preprocessing:
    """How RGB pixels become a network's input; the same numbers in training, export and serving.

    Attributes:
        kind: "squash" (whole frame to size), "resize_crop" (shorter edge, then centre crop) or "pad" (whole frame, black bars).
        height, width: of the input, px, 8..4096.
        crop_ratio: resize_crop: crop edge / resized edge, in (0, 1].
        mean, std: of R, G, B on a scale of 0..1; std above 0.
    """

    kind: Literal["squash", "resize_crop", "pad"]
    height: int
    width: int
    crop_ratio: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def resolve(
        cls,
        spec: PreprocessSpec,
        *,
        size: tuple[int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> Preprocessing:
        """Fill what the spec leaves open with the backbone's own size (height, width), mean and std.

        >>> half = (0.5, 0.5, 0.5)
        >>> Preprocessing.resolve(PreprocessSpec(size=64), size=(224, 224), mean=half, std=half).width
        64
        """
        chosen = spec.size if spec.size is not None else size
        height, width = (chosen, chosen) if isinstance(chosen, int) else chosen
        values = {"kind": spec.kind, "height": height, "width": width, "crop_ratio": spec.crop_ratio}
        return cls.from_dict({**values, "mean": list(spec.mean or mean), "std": list(spec.std or std)})

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Read and check the fields of `as_dict`.

        Raises:
            ModelError: a field is missing, unknown, of the wrong type or out of range.
        """
        names = set(cls.__dataclass_fields__)
        if not isinstance(values, dict) or set(values) != names:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ModelError(f"preprocessing: has {found}, must have {sorted(names)}; export the model again")

        def number(value: Any) -> bool:
            return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

        def three(value: Any, low: float) -> bool:
            return isinstance(value, list | tuple) and len(value) == 3 and all(number(v) and v > low for v in value)

        edges = (values["height"], values["width"])
        good = {
            "kind": isinstance(values["kind"], str) and values["kind"] in _RESIZES,
            "height and width": all(type(e) is int and 8 <= e <= 4096 for e in edges),
            "crop_ratio": number(values["crop_ratio"]) and 0 < values["crop_ratio"] <= 1,
            "mean": three(values["mean"], -math.inf),
            "std": three(values["std"], 0),
        }
        bad = [name for name, fine in good.items() if not fine]
        if bad:
            raise ModelError(f"preprocessing: {', '.join(bad)} out of range or of the wrong type; export the model again")
        floats = {name: tuple(float(v) for v in values[name]) for name in ("mean", "std")}
        return cls(**{**values, "crop_ratio": float(values["crop_ratio"]), **floats})


def to_size(pixels_HW3: NDArray[np.uint8], p: Preprocessing) -> NDArray[np.uint8]:
    """Bring an image to the network's size: (p.height, p.width, 3) uint8.

    Pillow's bilinear filter, whose support widens when it reduces (antialias), is the one resize everywhere.

    Args:
        pixels_HW3: uint8 RGB, any size.
        p: kind, height, width and crop_ratio are used.

    >>> p = Preprocessing("pad", 8, 8, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> to_size(np.full((10, 20, 3), 9, np.uint8), p)[:, 0, 0].tolist()
    [0, 0, 9, 9, 9, 9, 0, 0]
    """
    return np.asarray(_RESIZES[p.kind](Image.fromarray(np.ascontiguousarray(pixels_HW3)), p), np.uint8)


def _squash(image: Image.Image, p: Preprocessing) -> Image.Image:
    return image.resize((p.width, p.height), Image.Resampling.BILINEAR)


def _resize_crop(image: Image.Image, p: Preprocessing) -> Image.Image:
    """As torchvision's Resize(floor(size / crop_ratio)) and CenterCrop(size), generalised to a frame that is not square."""
    width, height = image.size
    if p.height * width >= p.width * height:  # the height is what limits
        tall = math.floor(p.height / p.crop_ratio)
        size = (max(p.width, tall * width // height), tall)
    else:
        wide = math.floor(p.width / p.crop_ratio)
        size = (wide, max(p.height, wide * height // width))
    left, top = round((size[0] - p.width) / 2), round((size[1] - p.height) / 2)
    return image.resize(size, Image.Resampling.BILINEAR).crop((left, top, left + p.width, top + p.height))


def _pad(image: Image.Image, p: Preprocessing) -> Image.Image:
    width, height = image.size
    scale = min(p.height / height, p.width / width)
    size = (max(1, min(p.width, round(width * scale))), max(1, min(p.height, round(height * scale))))
    frame = Image.new("RGB", (p.width, p.height))
    frame.paste(image.resize(size, Image.Resampling.BILINEAR), ((p.width - size[0]) // 2, (p.height - size[1]) // 2))
    return frame


_RESIZES: dict[str, Callable[[Image.Image, Preprocessing], Image.Image]] = {
    "squash": _squash,
    "resize_crop": _resize_crop,
    "pad": _pad,
}


def normalise(pixels_BHW3: NDArray[np.uint8], p: Preprocessing) -> NDArray[np.float32]:
    """(x / 255 - mean) / std as (B, 3, H, W) float32, computed in float32 in the order of the exported graph.

    Args:
        pixels_BHW3: uint8 RGB.
        p: mean and std are used.

    >>> p = Preprocessing("squash", 8, 8, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    >>> normalise(np.full((1, 8, 8, 3), 255, np.uint8), p)[0, :, 0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    unit = pixels_BHW3.astype(np.float32) / np.float32(255)
    scaled = (unit - np.asarray(p.mean, np.float32)) / np.asarray(p.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
