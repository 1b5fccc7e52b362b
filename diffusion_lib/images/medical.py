"""Medical image files: which they are, and the pictures in them.

Their readers, pydicom and nibabel, are an extra: pip install 'simple-diffusion[medical]'.
"""

from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
from PIL import Image

from diffusion_lib.errors import InputError
from diffusion_lib.images.account import LeftOut, leave_out
from diffusion_lib.images.dicom import read_dicom
from diffusion_lib.images.values import Deep, nearly_empty
from diffusion_lib.images.volumes import read_volume

READERS = {"DICOM": "pydicom", "NIfTI or Analyze": "nibabel"}
DICOM_NAME, VOLUME_NAMES = ".dcm", (".nii", ".nii.gz", ".hdr")
HEAD = 132  # bytes by which a file is recognised
HEADER_SIZES = (348, 540)  # what an Analyze or NIfTI-1 header, and a NIfTI-2 header, begins with


def medical_format(name: str, head: bytes) -> str | None:
    """Which of READERS a file needs, by its name and at least HEAD first bytes; None if none.

    DICOM files often have no extension. A .hdr may be a photograph or a text of another program.
    """
    if head[128:132] == b"DICM" or name.lower().endswith(DICOM_NAME) or begins_like_dicom(head):
        return "DICOM"
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if name.lower().endswith(".hdr") and sizes.isdisjoint(HEADER_SIZES):
        return None
    return "NIfTI or Analyze" if has_volume_extension(name) else None


def begins_like_dicom(head: bytes) -> bool:
    """Whether a file begins with an entry of DICOM, as those from before 1993 and some others do.

    An entry is a group and an element in 16 bits each, then two letters or a length of 32 bits.
    """
    if head[:4] in (b"\x08\0\0\0", b"\x02\0\0\0"):  # the length of the group, in four bytes
        return head[4:8] in (b"\x04\0\0\0", b"UL\x04\0")
    if head[:4] in (b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x08\0\x16\0"):
        return head[4:6] in (b"CS", b"UI") or head[6:8] == b"\0\0"
    return False


def has_volume_extension(name: str) -> bool:
    """Whether a name ends like that of a volume, which gives many pictures."""
    return name.lower().endswith(VOLUME_NAMES)


def has_medical_extension(name: str) -> bool:
    """Whether a name ends like that of a medical file."""
    return name.lower().endswith((DICOM_NAME, *VOLUME_NAMES))


def check_readers(names: list[str], read: Callable[[str, int], bytes], path: object) -> None:
    """Make sure that the readers are installed which these files need.

    Args:
        names: of the files.
        read: the first bytes of one of them.
        path: where they are, for the message.

    Raises:
        InputError: a reader is missing. Says for how many files.
    """
    missing = [kind for kind, reader in READERS.items() if find_spec(reader) is None]
    if not missing:
        return
    found = []
    for name in names:
        with suppress(Exception):  # one that cannot be read is named when its turn comes
            found.append(medical_format(name, read(name, HEAD)))
    for kind in missing:
        if count := found.count(kind):
            files = "file" if count == 1 else "files"
            raise InputError(
                f"{count} {kind} {files} found in {path}, but {READERS[kind]} is not installed: "
                "pip install 'simple-diffusion[medical]'"
            )


def read_medical(
    name: str, content: bytes, read: Callable[[str], bytes], left_out: LeftOut | None = None
) -> list[Image.Image | Deep] | None:
    """The pictures in a medical file, without those that are nearly empty.

    Of a DICOM file without a window that is not known yet: see `series.py`.

    Args:
        name: of the file.
        content: of the file.
        read: gives another file's content: an Analyze volume has its voxels in an .img.
        left_out: counts slices that are left out.

    Returns:
        Pictures, grey or RGB with 8 bits, deep ones of a DICOM file without a window, or None if
        this is no medical file.

    Raises:
        OSError, ValueError, AttributeError ...: a broken file, or one that the readers cannot take.
    """
    left_out = {} if left_out is None else left_out
    kind = medical_format(name, content)
    if kind is None:
        return None
    if kind == "DICOM":
        pictures = read_dicom(name, content, left_out)
    else:
        pictures = read_volume(name, content, read, left_out)
    seen = [p for p in pictures if isinstance(p, Deep) or not nearly_empty(np.asarray(p))]
    if len(seen) < len(pictures):
        leave_out(left_out, "empty", name, count=len(pictures) - len(seen))
    return seen
