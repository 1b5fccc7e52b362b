"""Formats of image files: which Pillow may open, and what becomes of the others."""

from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from os.path import splitext

from PIL import Image, PngImagePlugin, features

# Programs store workflows and whole scenes in the texts of a PNG; Pillow stops at 1 MB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26

# PostScript is a program, which Ghostscript would run. The others are stubs, which hold no picture.
NEVER_OPENED = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}

# Those that need more than Pillow, or are no pictures, by extension and by their first bytes.
EXTENSIONS = {
    "heic": "heic heif hif",
    "jxl": "jxl",
    "avif": "avif",
    # These are TIFFs, of which Pillow would show the thumbnail.
    "raw": "3fr arw cr2 cr3 crw dng erf iiq kdc mef mos nef nrw orf pef raf rw2 sr2 srf srw x3f",
    "postscript": "eps epsf ps ai",
    "high": "exr",
    "volume": "mgh mgz mha mhd mnc nhdr nrrd",
    "data": "arrow h5 hdf5 lmdb mat npy npz parquet pickle pkl tfrecord tfrecords",
    "document": "djvu pdf",
    "drawing": "afphoto clip kra sketch svg svgz xcf",
    "film": "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts ogv webm wmv",
    "archive": "7z bz2 gz lz4 rar tar tbz tgz txz xz zip zst",
}
KIND_BY_EXTENSION = {f".{end}": kind for kind, ends in EXTENSIONS.items() for end in ends.split()}
UNOPENED = ("film", "archive")  # by name alone
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


@cache
def readable_formats() -> tuple[str, ...]:
    """The names of the formats that Pillow may open, with its plug-ins for HEIC and JPEG XL."""
    Image.init()
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401  (registers itself)
    return tuple(name for name in Image.ID if name not in NEVER_OPENED)


def plugins() -> list[str]:
    """What is installed that changes which files can be read."""
    names = ("pillow_heif", "pillow_jxl", "tifffile", "imagecodecs", "pylibjpeg", "gdcm")
    installed = [name for name in names if find_spec(name)]
    supported = set(features.get_supported())  # older versions of Pillow do not know all of them
    return installed + sorted(supported & {"avif", "jpg_2000", "webp"})


def has_image_extension(name: str) -> bool:
    """Whether a name ends like that of a picture, such as .png or .JPG."""
    return splitext(name)[1].lower() in image_extensions()


@cache
def image_extensions() -> set[str]:
    """The extensions of the formats that Pillow may open, but for those of data and films."""
    readable_formats()  # finds them all
    return {
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind not in NEVER_OPENED and Image.MIME.get(kind, "").startswith("image/")
    }


def kind_by_extension(name: str) -> str | None:
    """The kind of a file that needs more than Pillow, by its name."""
    return KIND_BY_EXTENSION.get(splitext(name)[1].lower())


def kind_by_content(content: bytes) -> str | None:
    """The kind of a file that needs more than Pillow, by its first bytes."""
    if content.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "postscript"
    if content[4:8] == b"ftyp":
        brands = {content[i : i + 4] for i in range(8, 40, 4)}
        if brands & {b"avif", b"avis"}:
            return "avif"
        return "raw" if b"crx " in brands else "heic" if brands & set(HEIC_BRANDS) else None
    starts = {"jxl": (b"\xff\x0a", b"\0\0\0\x0cJXL "), "high": (b"#?RADIANCE", b"\x76\x2f\x31\x01")}
    return next((kind for kind, start in starts.items() if content.startswith(start)), None)
