"""Which picture files are read, and what the others are called.

Every reader of photos and masks opens its files with :func:`open_picture` and tells them apart by
the suffixes here, so all of them read the same kinds, under the same limit, and name the rest in
the same words.
"""

from __future__ import annotations

import io
import threading
from pathlib import PurePath
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from deeplab.errors import ImageFormatError, ImageSizeError

MAX_PIXELS = 400_000_000
"""Pictures with more pixels than this are refused before they are decoded."""

HEIC_SUFFIXES = frozenset((".heic", ".heif", ".heics", ".heifs", ".hif"))

PHOTO_SUFFIXES = HEIC_SUFFIXES | frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".apng", ".webp", ".avif",
    ".avifs", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2",
    ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".ico", ".tga",
))  # fmt: skip
"""How the names of pictures end, photos and masks alike; lower case."""

_RAW_SUFFIXES = frozenset((
    ".3fr", ".ari", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf",
    ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf",
    ".ori", ".pef", ".ptx", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
))  # fmt: skip
VIDEO_SUFFIXES = frozenset((
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m2ts", ".mts", ".ts",
    ".wmv", ".flv", ".3gp", ".ogv", ".vob", ".insv", ".hevc", ".h264",
))  # fmt: skip
"""How the names of videos end; lower case."""


# Pillow opens far more than photos; some of its readers start other programs (EPS) or are rarely
# tested. These are the formats in which pictures come.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000",
            "ICO", "TGA")  # fmt: skip

_READABLE = "JPEG, PNG, WebP, AVIF, HEIC, GIF, BMP, TIFF, …"
_AS_JPEG = "Export it as JPEG or PNG."

_HEIC = (
    "is a HEIC picture, as iPhones take them. Install the reader: pip install 'deeplab[heic]', or "
    "save it as JPEG (on the phone: Settings, Camera, Formats, Most Compatible)."
)
_RAW = (
    "is a camera's raw file, which has no colours until it is developed. Export it as JPEG or TIFF "
    "(darktable-cli photo.nef photo.jpg), or take out the camera's own JPEG "
    "(exiftool -b -JpgFromRaw photo.nef > photo.jpg)."
)
_VIDEO = (
    "is a video, here a photo is expected. deeplab segment takes videos whose names end as usual "
    "(.mp4, .mov, .mkv, …), segmenter.video(path) does in Python, and the browser page plays them "
    "(deeplab serve); or take its frames out (ffmpeg -i clip.mp4 -vf fps=2 frames/%05d.jpg)."
)

_TIFF = (
    "is a TIFF of a kind that is not read (64-bit values, many channels, a rare compression), or "
    "is cut off. Look at it in windows (--tile auto), which reads more kinds, or save it as PNG."
)

_HEIC_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs",
                          b"mif1", b"msf1", b"mif2"))  # fmt: skip

# The first bytes of files that are no pictures for us, and what they are.
_STARTS = (
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"MMOR", _RAW),
    (b"IIU\0", _RAW),
    (b"FOVb", _RAW),
    (b"\0MRM", _RAW),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"\0\0\x01\xba", _VIDEO),
    (b"\0\0\x01\xb3", _VIDEO),
    (b"FLV\x01", _VIDEO),
    (b"OggS", _VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", _VIDEO),
    (b"II*\0", _TIFF),
    (b"MM\0*", _TIFF),
    (b"II+\0", _TIFF),
    (b"%PDF", "is a PDF document. " + _AS_JPEG),
    (b"%!", "is a PostScript drawing (EPS), which is a program and is never run. " + _AS_JPEG),
    (b"\xc5\xd0\xd3\xc6", "is a PostScript drawing (EPS). " + _AS_JPEG),
    (b"8BPS", "is a Photoshop file. " + _AS_JPEG),
    (b"gimp xcf", "is a GIMP file. " + _AS_JPEG),
    (b"\xff\x0a", "is a JPEG XL picture, which is not read. " + _AS_JPEG),
    (b"\0\0\0\x0cJXL ", "is a JPEG XL picture, which is not read. " + _AS_JPEG),
    (b"v/1\x01", "is an OpenEXR picture, which has no fixed range. " + _AS_JPEG),
    (b"#?R", "is a Radiance HDR picture, which has no fixed range. " + _AS_JPEG),
    (b"\x93NUMPY", "is a numpy array. Save it as PNG: Image.fromarray(np.load(path)).save(…)."),
    (b"\x89HDF", "is an HDF5 file. Take its pictures out as PNG."),
    (b"PK\x03\x04", "is a ZIP archive. Unpack it first."),
    (b"version https://git-lfs", "is a Git LFS pointer, not the picture: run git lfs pull."),
    (b"\0\x05\x16\x07", "is what macOS keeps beside a file of the same name; leave it out."),
)


def open_picture(
    data: bytes, *, name: str, max_pixels: int = MAX_PIXELS, what: str = "photo"
) -> Image.Image:
    """Open the picture in ``data`` without decoding it; the only way in which files are opened.

    Args:
        data: the whole file.
        name: of the file, whose suffix may tell what it is; messages leave it out.
        max_pixels: more are refused. Pillow's own limit, which is lower, is not looked at.
        what: "photo" or "mask", for messages.

    Raises:
        ImageFormatError: it is no picture, or of a kind that is not read; the message says which.
        ImageSizeError: it has too many pixels.
        Exception: what Pillow's readers raise on damaged files.
    """
    formats: tuple[str, ...] = _FORMATS
    if _brands(data) & _HEIC_BRANDS and not _brands(data) & {b"avif", b"avis"}:
        if not _can_read_heic():
            raise ImageFormatError(_HEIC)
        formats = ("HEIF",)
    try:
        image = _open_without_limit(data, formats)
    except UnidentifiedImageError:
        raise ImageFormatError(_describe_unknown(data, name, formats)) from None
    width, height = image.size
    if width * height > max_pixels:
        raise ImageSizeError(
            f"the {what} has {width * height / 1e6:,.0f} megapixels ({width}×{height}), "
            f"the limit is {max_pixels / 1e6:,.0f}. "
            + (
                "Look at it in windows, which takes little memory: --tile auto (segmenter.tiles)."
                if what == "photo"
                else "Make it smaller first."
            )
        )
    if image.format == "TIFF" and _is_raw_preview(image):
        raise ImageFormatError(_RAW)
    check_length(image, len(data))
    return image


def readable_suffixes() -> frozenset[str]:
    """Return :data:`PHOTO_SUFFIXES`, without HEIC's where its reader is not installed."""
    return PHOTO_SUFFIXES if _can_read_heic() else PHOTO_SUFFIXES - HEIC_SUFFIXES


def describe_suffix(suffix: str) -> str:
    """Return what to do about files of a suffix that is passed over; empty when there is nothing.

    Args:
        suffix: lower case, with its dot.
    """
    if suffix in HEIC_SUFFIXES:
        return "iPhone photos: pip install 'deeplab[heic]' reads them"
    if suffix in _RAW_SUFFIXES:
        return "a camera's raw files: export them as JPEG"
    if suffix in VIDEO_SUFFIXES:
        return "videos: deeplab segment takes them, with pip install 'deeplab[video]'"
    return ""


_limit = threading.Lock()


def open_header(file: BinaryIO) -> Image.Image:
    """Open a picture for its size and mode alone; its pixels are not to be decoded.

    Raises:
        Exception: what Pillow's readers raise on what they do not know, and on damaged files.
    """
    brands = _brands(file.read(_BRANDS_END))
    file.seek(0)
    heic = brands & _HEIC_BRANDS and not brands & {b"avif", b"avis"} and _can_read_heic()
    return _open_without_limit(file, ("HEIF",) if heic else _FORMATS)


def _open_without_limit(data: bytes | BinaryIO, formats: tuple[str, ...]) -> Image.Image:
    # Pillow's own limit warns at 89 megapixels and is global; ours is per call.
    with _limit:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            file = io.BytesIO(data) if isinstance(data, bytes) else data
            return Image.open(file, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _can_read_heic() -> bool:
    try:
        import pillow_heif
    except ImportError:
        return False
    if "HEIF" not in Image.OPEN:
        pillow_heif.register_heif_opener(thumbnails=False)
    return True


_BRANDS_END = 256


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of an ISO media file (HEIC, AVIF, MP4, …), and {} for any other."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), _BRANDS_END, len(data))
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def check_length(image: Image.Image, length: int) -> None:
    """Refuse a file that is too short for its stored pixels, before memory is taken for them.

    Raises:
        OSError: as Pillow does, after it took the memory.
    """
    for codec, extents, offset, details in getattr(image, "tile", ()):
        stride = details[1] if isinstance(details, tuple) and len(details) > 1 else 0
        if codec != "raw" or extents is None or not isinstance(stride, int) or stride <= 0:
            continue
        needed = offset + stride * (extents[3] - extents[1] - 1)
        if needed >= length:
            raise OSError(f"it has {length} bytes, expected more than {needed}")


def _is_raw_preview(tiff: Image.Image) -> bool:
    """Return whether the first picture of a TIFF is the small preview of a camera's raw file."""
    tags = getattr(tiff, "tag_v2", {})
    is_reduced, dng_version, has_more = 254, 50706, 330
    return bool(dng_version in tags or (int(tags.get(is_reduced, 0)) & 1 and has_more in tags))


def _describe_unknown(data: bytes, name: str, formats: tuple[str, ...]) -> str:
    """Return what a file is that no reader knows, and the way out."""
    suffix = PurePath(name).suffix.lower()
    brands = _brands(data)
    if formats == ("HEIF",):
        return "is a HEIC picture that is damaged or cut off. Copy it again, or save it as JPEG."
    if b"crx " in brands or suffix in _RAW_SUFFIXES:
        return _RAW
    for start, meaning in _STARTS:
        if data.startswith(start):
            return meaning
    if brands or (data[:4] == b"RIFF" and data[8:12] == b"AVI ") or suffix in VIDEO_SUFFIXES:
        return _VIDEO
    if data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        if b"<svg" in data[:4096]:
            return f"is an SVG drawing. {_AS_JPEG}"
        return "is a web page or XML, not a picture: did a download go wrong?"
    if data[128:132] == b"DICM":
        return f"is a DICOM file. {_AS_JPEG}"
    return f"is not a picture in a format that can be read ({_READABLE})."
