"""Medical image files: DICOM, and volumes in NIfTI or Analyze, as the pictures that a viewer shows.

Their readers, pydicom and nibabel, are an extra: pip install 'simple-diffusion[medical]'.
"""

import gzip
import io
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
from PIL import Image

from diffusion_lib.errors import InputError

READERS = {"DICOM": "pydicom", "NIfTI or Analyze": "nibabel"}
DICOM_NAME, VOLUME_NAMES = ".dcm", (".nii", ".nii.gz", ".hdr")
HEAD = 132  # bytes by which a file is recognised
HEADER_SIZES = (348, 540)  # what an Analyze or NIfTI-1 header, and a NIfTI-2 header, begins with

# A few voxels are far brighter than the rest, such as those of a vessel: they must not set white.
PERCENTILES = (0.5, 99.5)
# Of a volume, the slices of the central half: the outer ones show the neck, the crown, or air.
CENTER = 0.5
# A slice is nearly empty when fewer than 2 % of its pixels are brighter than a tenth of white.
NEARLY_BLACK, NEARLY_EMPTY = 25, 0.02


def medical_format(name: str, head: bytes) -> str | None:
    """Which of READERS a file needs, by its name and at least HEAD first bytes; None if none.

    DICOM files often have no extension. A .hdr may be a photograph or a text of another program.
    """
    if head[128:132] == b"DICM" or name.lower().endswith(DICOM_NAME):
        return "DICOM"
    sizes = {int.from_bytes(head[:4], order) for order in ("little", "big")}
    if name.lower().endswith(".hdr") and sizes.isdisjoint(HEADER_SIZES):
        return None
    return "NIfTI or Analyze" if has_volume_extension(name) else None


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
    name: str, content: bytes, read: Callable[[str], bytes]
) -> list[Image.Image] | None:
    """The pictures in a medical file, without those that are nearly empty.

    Args:
        name: of the file.
        content: of the file.
        read: gives another file's content: an Analyze volume has its voxels in an .img.

    Returns:
        Pictures, grey or RGB with 8 bits, or None if this is no medical file.

    Raises:
        OSError, ValueError, AttributeError ...: a broken file, or one that the readers cannot take.
    """
    kind = medical_format(name, content)
    if kind is None:
        return None
    pictures = read_dicom(content) if kind == "DICOM" else read_volume(name, content, read)
    return [p for p in pictures if (np.asarray(p) > NEARLY_BLACK).mean() >= NEARLY_EMPTY]


def read_dicom(content: bytes) -> list[Image.Image]:
    """Every frame of a DICOM file, mostly one, as its header says that it is to be shown.

    A report or a directory, which has no pixels, gives none. Without a window in the header, black
    and white are percentiles of the file's values.
    """
    import pydicom  # an extra
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

    header = pydicom.dcmread(io.BytesIO(content))
    if "PixelData" not in header:
        return []
    values = header.pixel_array  # (H, W) or (frames, H, W), for colour with 3 more at the end
    kind = header.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        values = apply_color_lut(values, header)
    if not kind.startswith("MONOCHROME"):
        pixels = as_bytes(values, 0, np.iinfo(values.dtype).max)
        return [Image.fromarray(frame) for frame in pixels.reshape(-1, *pixels.shape[-3:])]
    values = apply_modality_lut(values, header)
    if header.get("VOILUTSequence"):
        values = apply_voi(values, header)
        low, high = 0, 2 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif header.get("WindowWidth"):
        low, high = apply_windowing(np.array([-1e9, 1e9]), header)  # its black and its white
        values = apply_windowing(values, header)
    else:
        low, high = np.percentile(values, PERCENTILES)
    pixels = as_bytes(values, low, high)
    if kind == "MONOCHROME1":  # small values are bright
        pixels = 255 - pixels
    return [Image.fromarray(frame) for frame in pixels.reshape(-1, *pixels.shape[-2:])]


def read_volume(name: str, content: bytes, read: Callable[[str], bytes]) -> list[Image.Image]:
    """The axial slices in the central half of a volume, from the feet up, with square pixels.

    They lie as radiologists look at them: the front at the top, the patient's left on the right.
    Black and white are percentiles of the whole volume, so that slices compare. Of a series of
    volumes it is the first.
    """
    import nibabel  # an extra

    volume = open_volume(name, content, read)
    for _ in range(volume.ndim - 3):
        volume = volume.slicer[..., 0]
    volume = nibabel.as_closest_canonical(volume)  # axes run to the right, the front and the top
    values = np.nan_to_num(volume.get_fdata(dtype=np.float32))
    low, high = np.percentile(values, PERCENTILES).tolist()
    margin = int(values.shape[2] * (1 - CENTER) / 2)
    values = values[::-1, ::-1, margin : values.shape[2] - margin]
    slices = np.ascontiguousarray(as_bytes(values, low, high).transpose(2, 1, 0))  # (n, H, W)
    across, down, _ = volume.header.get_zooms()  # millimetres a voxel
    scale = 1 / min(across, down)
    size = round(slices.shape[2] * across * scale), round(slices.shape[1] * down * scale)
    return [Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS) for pixels in slices]


def open_volume(name: str, content: bytes, read: Callable[[str], bytes]):
    """A NIfTI or Analyze file's content -> nibabel's image, whose voxels are not read yet."""
    from nibabel import AnalyzeImage, Nifti1Image, Nifti1Pair, Nifti2Image, Nifti2Pair
    from nibabel.fileholders import FileHolder

    if name.lower().endswith(".gz"):
        content = gzip.decompress(content)
    if name.lower().endswith(".hdr"):
        kinds = (Nifti1Pair, Nifti2Pair, AnalyzeImage)
        parts = {"header": content, "image": read(name[:-4] + ".img")}
    else:
        kinds = (Nifti1Image, Nifti2Image)
        parts = {"image": content}
    fitting = (kind for kind in kinds if kind.header_class.may_contain_header(content))
    kind = next(fitting, kinds[-1])  # what fits nothing, nibabel refuses with a reason
    return kind.from_file_map(
        {part: FileHolder(fileobj=io.BytesIO(some)) for part, some in parts.items()}
    )


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers of any shape as bytes: low and below is 0, high and above is 255."""
    return (255 * ((values - low) / max(high - low, 1e-12)).clip(0, 1)).round().astype(np.uint8)
