"""What lies at a path and is no training image: counted by kind, and told in one line."""

from typing import NamedTuple

# Written into every picture that this program makes, so that it is not trained on by accident.
MARK = "made by Simple Diffusion"
BMP_MARK = b"SiDi"  # in the four bytes that the format leaves to programs
SHOWN, SHOWN_DAMAGED = 3, 10  # names


class Kind(NamedTuple):
    """How files of one kind are told.

    one, many: what they are called.
    advice: what to do, or "".
    missed: whether an image may be lost by it, so that a warning is due.
    named: whether to name some.
    """

    one: str
    many: str
    advice: str = ""
    missed: bool = False
    named: bool = True


KINDS = {
    "damaged": Kind("damaged", "damaged", missed=True),
    "unread": Kind(
        "file unreadable", "files unreadable", "tried again at the next start", missed=True
    ),
    "heic": Kind("HEIC", "HEIC", "pip install pillow-heif", missed=True),
    "jxl": Kind("JPEG XL", "JPEG XL", "pip install pillow-jxl-plugin", missed=True),
    "avif": Kind("AVIF", "AVIF", "pip install -U pillow", missed=True),
    "raw": Kind("raw photo", "raw photos", "save as JPEG or TIFF", missed=True),
    "postscript": Kind("PostScript", "PostScript", "never run: save as PNG", missed=True),
    "large": Kind("too large", "too large", "over 2 GiB: cut them up", missed=True),
    "unreadable": Kind(
        "folder unreadable", "folders unreadable", "change its permissions", missed=True
    ),
    "pages": Kind("page that cannot be read", "pages that cannot be read", missed=True),
    "high": Kind("OpenEXR or Radiance", "OpenEXR or Radiance", "save as TIFF", missed=True),
    "volume": Kind("other volume", "other volumes", "convert to NIfTI", missed=True),
    "data": Kind("file of arrays", "files of arrays", "save its images as PNG"),
    "document": Kind("document", "documents", "save its pages as PNG"),
    "drawing": Kind("drawing", "drawings", "save as PNG"),
    "film": Kind("film", "films", "save its frames"),
    "archive": Kind("archive", "archives", "unpack it, or give it as PATH"),
    "special": Kind("pipe or device", "pipes or devices"),
    "link": Kind("link to what is read already", "links to what is read already"),
    "older": Kind("older file of the same name", "older files of the same name"),
    "own": Kind("of this program's own pictures", "of this program's own pictures", named=False),
    "system": Kind("folder with thumbnails or trash", "folders with thumbnails or trash"),
    "hidden": Kind("hidden", "hidden", named=False),
    "frames": Kind("later frame of an animation", "later frames of animations", named=False),
    "previews": Kind("preview inside a TIFF", "previews inside TIFFs", named=False),
    "volumes": Kind("later volume of a series", "later volumes of series", named=False),
    "outer": Kind("outer slice of a volume", "outer slices of volumes", named=False),
    "empty": Kind("nearly empty slice", "nearly empty slices", named=False),
    "no_pixels": Kind("DICOM file without pixels", "DICOM files without pixels", named=False),
    "other": Kind("file that is no image", "files that are no images", named=False),
}  # fmt: skip

# By kind: how many, and the names of some with the reason, if there is one.
LeftOut = dict[str, tuple[int, list[tuple[str, str]]]]


def leave_out(left_out: LeftOut, kind: str, name: str, reason: str = "", count: int = 1) -> None:
    """Count something that is left out."""
    before, some = left_out.get(kind, (0, []))
    left_out[kind] = (before + count, [*some, (name, reason)][: shown(kind)])


def merged(first: LeftOut, second: LeftOut) -> LeftOut:
    """Both together, in the order of KINDS."""
    both: LeftOut = {}
    for kind in KINDS:
        for count, some in filter(None, (first.get(kind), second.get(kind))):
            before, others = both.get(kind, (0, []))
            both[kind] = (before + count, [*others, *some][: shown(kind)])
    return both


def shown(kind: str) -> int:
    """How many names of a kind are shown."""
    return SHOWN_DAMAGED if kind == "damaged" else SHOWN


def is_missed(left_out: LeftOut) -> bool:
    """Whether an image may have been lost."""
    return any(KINDS[kind].missed for kind in left_out)


def account(images: int, files: int, left_out: LeftOut) -> str:
    """The line that accounts for everything at a path."""
    line = f"{images:,} image{'s' * (images != 1)} from {files:,} file{'s' * (files != 1)}"
    parts = []
    for kind, (count, some) in left_out.items():
        one, many, advice, _, named = KINDS[kind]
        names, told = [], set()
        for name, reason in some if named else []:
            names.append(f"{name}: {reason}" if reason and reason not in told else name)
            told.add(reason)
        if names and count > len(names):
            names.append("...")
        inside = "; ".join(filter(None, [", ".join(names), advice]))
        parts.append(f"{count:,} {one if count == 1 else many}{f' ({inside})' if inside else ''}")
    return f"{line}; left out: {', '.join(parts)}" if parts else line


def is_own(content: bytes) -> bool:
    """Whether a picture was made by this program."""
    if content[:2] == b"BM":
        return content[6:10] == BMP_MARK
    mark = MARK.encode()
    return mark in content[:4096] or mark in content[-4096:]
