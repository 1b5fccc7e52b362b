"""TIFF: every page is a picture, of whatever numbers it has."""

import io
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
from PIL import Image, ImageSequence

from diffusion_lib.images.account import LeftOut, leave_out
from diffusion_lib.images.values import (
    Deep,
    black_and_white,
    deep,
    deep_with_alpha,
    with_profile,
)

SUBFILE, BITS, PHOTOMETRIC, SAMPLES, FORMAT = 254, 258, 262, 277, 339  # tags
NO_DATA = 42113  # GDAL's: a number as text
LARGEST = 2**31  # numbers that the pixels of a file may be
PREVIEW, MASK = 1, 4  # bits of SUBFILE
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # of FORMAT


def is_tiff(content: bytes) -> bool:
    """Whether a file is a TIFF, or a BigTIFF."""
    return content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(content: bytes, name: str, left_out: LeftOut) -> Iterator[Image.Image | Deep]:
    """The pages of a TIFF, without previews and masks, which are counted.

    Raises:
        OSError, ValueError ...: a broken file, or one that needs tifffile.
    """
    try:
        image = Image.open(io.BytesIO(content), formats=["TIFF"])
    except OSError:  # numbers that Pillow does not know
        yield from read_scientific(content)
        return
    imagej = str(image.tag_v2.get(270, "")).startswith("ImageJ=")
    if imagej and find_spec("tifffile") and image.n_frames == 1 and "images=" in image.tag_v2[270]:
        yield from read_scientific(content)  # a stack that has one page in its list
        return
    for page in ImageSequence.Iterator(image):
        tags = page.tag_v2
        if image.n_frames > 1 and tags.get(SUBFILE, 0) & (PREVIEW | MASK):
            leave_out(left_out, "previews", name)
        else:
            yield read_page(page, content)


def read_page(page: Image.Image, content: bytes) -> Image.Image | Deep:
    """One page, as Pillow opened it."""
    tags = page.tag_v2
    bits, kind = (int(np.max(tags.get(tag, 1))) for tag in (BITS, FORMAT))
    missing = no_data(tags.get(NO_DATA))
    if bits == 16 and int(np.max(tags.get(SAMPLES, 1))) > 1:  # Pillow would keep 8 bits
        return with_profile(deep_colour(page, content, missing), page.info.get("icc_profile"))
    if bits == 8 and kind == SIGNED and page.mode == "L":
        return deep(np.asarray(page).view(np.int8), missing)
    if page.mode in ("L", "RGB") and missing is not None and tags.get(PHOTOMETRIC) != 0:
        nothing = np.isnan(deep(np.asarray(page), missing).values[..., 0])
        page.paste("black", mask=Image.fromarray(nothing))
    if page.mode != "F" and not page.mode.startswith("I"):
        return page.copy()
    values = np.asarray(page)
    if bits == 32 and kind == UNSIGNED and page.mode == "I":
        values = values.view(np.uint32)
    if bits == 16 and kind == SIGNED:
        values = values.astype(np.uint16).view(np.int16)
    picture = deep(values, missing)
    return inverted(picture) if tags.get(PHOTOMETRIC) == 0 else picture


def no_data(tag: str | None) -> float | None:
    """The number that stands for no data, by GDAL's tag."""
    with suppress(ValueError):
        return float((tag or "").strip(" \0"))
    return None


def inverted(picture: Image.Image | Deep) -> Image.Image | Deep:
    """A picture in whose file 0 is white."""
    if not isinstance(picture, Deep) or not picture.whole:
        return picture
    top = black_and_white(0, np.nanmax(picture.values), whole=True)[1]
    return picture._replace(values=top - picture.values)


def deep_colour(page: Image.Image, content: bytes, missing: float | None) -> Image.Image | Deep:
    """A page of colours with 16 bits each, or as Pillow shows it where tifffile cannot read it."""
    number = page.tell()
    with suppress(ImportError, ValueError):
        import tifffile  # an extra

        values = tifffile.imread(io.BytesIO(content), key=number)
        if values.shape[0] in (3, 4) and values.shape[2] > 4:  # colours one after the other
            values = np.moveaxis(values, 0, 2)
        if page.mode == "RGBA" and values.ndim == 3:
            return deep_with_alpha(values[..., :4])
        if page.mode == "RGB" and values.ndim == 3:
            return deep(values[..., :3], missing)
    image = page.copy()
    if max(high for _, high in image.convert("RGB").getextrema()) < 128:
        raise ValueError("16-bit colours: pip install tifffile imagecodecs")
    return image


def read_scientific(content: bytes) -> Iterator[Image.Image | Deep]:
    """The pictures in a TIFF of 64 bits, of many channels, or of ImageJ, which Pillow cannot read.

    Raises:
        ValueError: tifffile is not installed, or cannot read this one either.
    """
    if not find_spec("tifffile"):
        raise ValueError("a TIFF of this kind needs a reader: pip install tifffile")
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        if not file.series:
            raise ValueError("a TIFF without pages")
        tag = file.pages[0].tags.get(NO_DATA)
        missing = no_data(tag and tag.value)
        if sum(series.size for series in file.series) > LARGEST:
            raise ValueError("more than 2 billion pixels")
        for series in file.series:
            values, white = series.asarray(), series.keyframe.photometric == 0
            samples = series.axes.find("S")
            many = series.shape[samples] if samples >= 0 else 1
            opacity = many == 2 and series.keyframe.extrasamples[:1] in ((1,), (2,))
            colour = many in (3, 4) or opacity
            if samples >= 0:  # other channels than colours become pictures
                values = np.moveaxis(values, samples, -1 if colour else 0)
            for picture in values.reshape(-1, *values.shape[-3 if colour else -2 :]):
                if opacity and picture.dtype == np.uint16:
                    one = deep_with_alpha(picture)
                else:
                    kept = {2: 1, 4: 3}.get(many, many) if colour else 1
                    one = deep(picture[..., :kept] if colour else picture, missing)
                yield inverted(one) if white else one
