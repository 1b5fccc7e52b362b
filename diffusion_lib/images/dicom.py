"""DICOM files as the pictures that a viewer shows. Their reader, pydicom, is an extra."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from diffusion_lib.images.account import LeftOut, leave_out
from diffusion_lib.images.values import Deep, as_bytes, plausible, stretched

if TYPE_CHECKING:
    from pydicom import Dataset

# Where the pixels of a file may be: whole numbers or not.
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# Parts of a header in which a file of many frames says what holds for each of them.
GROUPS = ("FrameVOILUTSequence", "PixelValueTransformationSequence", "PixelMeasuresSequence")
LARGEST = 2**31  # numbers that the pixels of a file may be
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")


def read_dicom(name: str, content: bytes, left_out: LeftOut) -> list[Image.Image | Deep]:
    """Every frame of a DICOM file, mostly one, as its header says that it is to be shown.

    A report or a directory, which has no pixels, gives none. Without a window in the header, a
    frame is a deep picture of its series; one that belongs to none goes with those of its folder.

    Raises:
        ValueError, AttributeError ...: what of the header is missing, or cannot be read.
    """
    header = open_dicom(content)
    if not any(part in header for part in PIXELS):
        if "Rows" in header or "Image Storage" in kind_of(header):
            raise ValueError("the pixels are missing")
        leave_out(left_out, "no_pixels", name)
        return []
    size = [header.get(word) or 1 for word in ("Rows", "Columns", "NumberOfFrames")]
    if math.prod(map(int, size)) * header.SamplesPerPixel > LARGEST:
        raise ValueError("more than 2 billion pixels")
    values = header.pixel_array  # (H, W) or (frames, H, W), for colour with 3 more at the end
    frames = values if int(header.get("NumberOfFrames") or 1) > 1 else values[None]
    headers = [frame_header(header, i) for i in range(len(frames))]
    if header.SamplesPerPixel > 1 or header.PhotometricInterpretation == "PALETTE COLOR":
        shown = [show_colour(*each) for each in zip(frames, headers, strict=True)]
    else:
        series = header.get("SeriesInstanceUID") or f"folder {PurePosixPath(name).parent}"
        kind = next(part for part in PIXELS if part in header)  # maps of floats have another scale
        shown = show_grey(frames, headers, f"{series} {kind}")
    return [square_pixels(*each) for each in zip(shown, headers, strict=True)]


def open_dicom(content: bytes) -> Dataset:
    """The header of a file, also of one of the old kind, and with what is missing but plain."""
    import pydicom  # an extra

    header = pydicom.dcmread(io.BytesIO(content), force=True)
    if not header.file_meta and not any(word in header for word in ("SOPClassUID", "Rows")):
        raise ValueError("not a DICOM file")
    if "TransferSyntaxUID" not in header.file_meta:
        implicit, little = header.original_encoding
        uid = pydicom.uid
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    header.SamplesPerPixel = int(header.get("SamplesPerPixel") or 1)
    grey = "MONOCHROME2" if header.SamplesPerPixel == 1 else "RGB"
    header.PhotometricInterpretation = header.get("PhotometricInterpretation") or grey
    if "PixelData" in header and header.get("BitsAllocated"):
        header.BitsStored = header.get("BitsStored") or header.BitsAllocated
        header.PixelRepresentation = header.get("PixelRepresentation") or 0
    return header


def kind_of(header: Dataset) -> str:
    """What a file is by its header, such as "MR Image Storage", or ""."""
    uid = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
    return uid.name if uid else ""


def frame_header(header: Dataset, frame: int) -> Dataset:
    """What a header says of a frame: in general, for all frames, and for this one."""
    import pydicom

    words = (
        *("PhotometricInterpretation", "BitsStored", "PixelRepresentation", "PixelPaddingValue"),
        *("PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
        *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", *SPACINGS),
        *(f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue")
          for part in ("Descriptor", "Data")),
        "PaletteColorLookupTableUID",
    )  # fmt: skip
    found = pydicom.Dataset()
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    groups = [*shared[:1], *per_frame[frame : frame + 1]]
    inner = [items[0] for group in groups for key in GROUPS if (items := group.get(key))]
    for item in [header, *inner]:
        for word in words:
            with suppress(KeyError, ValueError):  # not there, or no number where one should be
                found[item[word].tag] = item[word]
    for word in ("RescaleSlope", "RescaleIntercept"):  # both or none, and no slope of 0
        if not found.get("RescaleSlope") or found.get("RescaleIntercept") is None:
            found.pop(word, None)
    for word in ("ModalityLUTSequence", "VOILUTSequence"):
        if word in found and not found[word].value:
            del found[word]
    return found


def show_colour(values: np.ndarray, header: Dataset) -> np.ndarray:
    """A frame in colour, uint8, shape (H, W, 3)."""
    from pydicom.pixels import apply_color_lut

    if header.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, header)
        return as_bytes(values, 0, np.iinfo(values.dtype).max)
    return as_bytes(values[..., :3], 0, 2**header.BitsStored - 1)


def show_grey(frames: np.ndarray, headers: list[Dataset], series: str) -> list[np.ndarray | Deep]:
    """Frames in grey, uint8, shape (H, W) each, or deep ones where no header has a window; what was
    not scanned is black.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

    shown = []
    for stored, header in zip(frames, headers, strict=True):
        hidden, frame = padding(stored, header), apply_modality_lut(stored, header)
        inverted = header.PhotometricInterpretation == "MONOCHROME1"  # small values are bright
        if header.get("VOILUTSequence"):
            frame = apply_voi(frame, header)
            low, high = 0, 2 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
        elif has_window(header):
            with np.errstate(over="ignore"):  # far outside of a sigmoid
                low, high = apply_windowing(np.array([-1e9, 1e9]), header)  # its black and white
                frame = apply_windowing(frame, header)
        else:
            values = (-1.0 if inverted else 1.0) * frame.astype(np.float64)
            values[hidden | ~np.isfinite(values)] = np.nan
            shown.append(Deep(values[..., None], whole=False, series=series))
            continue
        pixels = as_bytes(frame, low, high)
        if inverted:
            pixels = 255 - pixels
        pixels[hidden] = 0
        shown.append(pixels)
    return shown


def has_window(header: Dataset) -> bool:
    """Whether a header has a window that can be used; of several, pydicom takes the first."""
    try:
        center, width = (
            float(np.ravel(header.get(word))[0]) for word in ("WindowCenter", "WindowWidth")
        )
    except (IndexError, TypeError, ValueError):  # missing, empty, or no number
        return False
    exact = header.get("VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID")
    return math.isfinite(center) and (0 < width < math.inf if exact else 1 <= width < math.inf)


def padding(values: np.ndarray, header: Dataset) -> np.ndarray:
    """Where a frame has the value that stands for "not scanned"."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(values.shape, bool)
    first, last = sorted([value, value if limit is None else limit])
    return (values >= first) & (values <= last)


def square_pixels(pixels: np.ndarray | Deep, header: Dataset) -> Image.Image | Deep:
    """A picture whose pixels are as wide as high, whatever those of the file are."""
    picture = pixels if isinstance(pixels, Deep) else Image.fromarray(pixels)
    height, width = (pixels.values if isinstance(pixels, Deep) else pixels).shape[:2]
    for spacing in (header.get(word) for word in SPACINGS):
        if spacing is not None and len(spacing) == 2 and plausible(*map(float, spacing)):
            down, across = (float(each) / min(map(float, spacing)) for each in spacing)
            size = round(width * across), round(height * down)
            if size == (width, height):
                return picture
            if isinstance(picture, Deep):
                return stretched(picture, size)
            return picture.resize(size, Image.Resampling.LANCZOS)
    return picture
