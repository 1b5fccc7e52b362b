"""NIfTI and Analyze volumes as axial slices. Their reader, nibabel, is an extra."""

import gzip
import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from diffusion_lib.images.account import LeftOut, leave_out
from diffusion_lib.images.values import PERCENTILES, as_bytes, plausible

# Of a volume, the slices of the central half: the outer ones show the neck, the crown, or air.
CENTER = 0.5
LARGEST = 2**32  # bytes of a volume that is packed


def read_volume(
    name: str, content: bytes, read: Callable[[str], bytes], left_out: LeftOut
) -> list[Image.Image]:
    """The axial slices in the central half of a volume, from the feet up, with square pixels.

    They lie as radiologists look at them: the front at the top, the patient's left on the right.
    Black and white are percentiles of the whole volume, so that slices compare. Of a series of
    volumes it is the first that is not empty.

    Raises:
        ValueError ...: it is damaged, or has only one dimension.
    """
    from nibabel.orientations import apply_orientation, io_orientation

    volume = open_volume(name, content, read)
    if len(volume.shape) < 2:
        raise ValueError("a volume of one dimension, where two or three are needed")
    series = list(np.ndindex(volume.shape[3:]))
    if len(series) > 1:
        leave_out(left_out, "volumes", name, count=len(series) - 1)
    values = next(filter(has_contrast, (read_values(volume, i) for i in series)), None)
    values = read_values(volume, series[0]) if values is None else values
    axes = io_orientation(usable_affine(volume))  # turned to run to the right, the front, the top
    values = apply_orientation(values, axes)
    zooms = np.ones(3)
    zooms[axes[:, 0].astype(int)] = [*volume.header.get_zooms()[:3], 1, 1][:3]  # mm a voxel
    if values.dtype == np.uint8 and values.shape[-1] == 3:
        pixels = values
    else:
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, PERCENTILES).tolist() if finite.size else (0, 1)
        pixels = as_bytes(values, low, high)
    margin = int(values.shape[2] * (1 - CENTER) / 2)
    if margin:
        leave_out(left_out, "outer", name, count=2 * margin)
    pixels = pixels[::-1, ::-1, margin : pixels.shape[2] - margin]
    slices = np.ascontiguousarray(pixels.transpose(2, 1, 0, 3))  # (n, H, W, 1 or 3)
    across, down = zooms[:2] if plausible(*zooms[:2]) else (1.0, 1.0)
    scale = 1 / min(across, down)
    size = round(slices.shape[2] * across * scale), round(slices.shape[1] * down * scale)
    images = [Image.fromarray(each.squeeze(2) if each.shape[2] == 1 else each) for each in slices]
    return [image.resize(size, Image.Resampling.LANCZOS) for image in images]


def read_values(volume, index: tuple[int, ...]) -> np.ndarray:
    """One volume of a series, shape (x, y, z, 1), or (x, y, z, 3) if it has colours."""
    flat = len(volume.shape) == 2
    values = np.asanyarray(volume.dataobj if flat else volume.dataobj[(..., *index)])
    if values.dtype.names:  # red, green, blue, and perhaps opacity
        values = np.stack([values[part] for part in values.dtype.names[:3]], axis=-1)
    else:
        values = (np.abs(values) if values.dtype.kind == "c" else values)[..., None]
        values = values.astype(np.float32, copy=False)
    return values[:, :, None] if flat else values


def has_contrast(values: np.ndarray) -> bool:
    """Whether there is more than one value in a volume."""
    finite = values[np.isfinite(values)]
    return bool(finite.size) and finite.min() < finite.max()


def usable_affine(volume) -> np.ndarray:
    """Where a volume lies by its header, or in the order of its voxels if that says nothing."""
    candidates = [volume.affine]
    if hasattr(volume, "get_qform"):
        candidates += [volume.get_qform(), volume.header.get_base_affine()]
    for affine in candidates:
        if np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-12:
            return affine
    return np.eye(4)


def open_volume(name: str, content: bytes, read: Callable[[str], bytes]):
    """A NIfTI or Analyze file's content -> nibabel's image, whose voxels are not read yet."""
    from nibabel import AnalyzeImage, Nifti1Image, Nifti1Pair, Nifti2Image, Nifti2Pair
    from nibabel.fileholders import FileHolder

    if content.startswith(b"\x1f\x8b"):  # whatever its name is
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError("more than 4 GiB when it is unpacked")
    if name.lower().endswith(".hdr"):
        kinds = (Nifti1Pair, Nifti2Pair, AnalyzeImage)
        parts = {"header": content, "image": read_voxels(name, read)}
    else:
        kinds = (Nifti1Image, Nifti2Image)
        parts = {"image": content}
    fitting = (kind for kind in kinds if kind.header_class.may_contain_header(content))
    kind = next(fitting, kinds[-1])  # what fits nothing, nibabel refuses with a reason
    volume = kind.from_file_map(
        {part: FileHolder(fileobj=io.BytesIO(some)) for part, some in parts.items()}
    )
    voxels, there = volume.dataobj, len(parts["image"])
    needed = voxels.offset + math.prod(voxels.shape) * voxels.dtype.itemsize
    if needed > there:  # nibabel would take the memory first
        raise ValueError(f"its voxels are cut off: {there:,} bytes of {needed:,}")
    return volume


def read_voxels(name: str, read: Callable[[str], bytes]) -> bytes:
    """The .img that belongs to a .hdr, whether in capitals or not."""
    endings = [".IMG", ".img", ".Img"] if name[-3:].isupper() else [".img", ".IMG", ".Img"]
    for ending in endings:
        try:
            return read(name[:-4] + ending)
        except (FileNotFoundError, KeyError):
            continue
    raise FileNotFoundError(2, f"No such file or directory: its voxels, {name[:-4]}{endings[0]}")
