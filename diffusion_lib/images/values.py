"""Values of pixels, as they are stored in files of all kinds, and as 8-bit RGB."""

from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

LARGEST_RATIO = 100  # of the sides of a pixel
LARGEST_FLOAT = 1e30  # larger ones stand for "no data"
MISSING, WHITE = 0, 65535  # of the codes of a deep square
# A few voxels are far brighter than the rest, such as those of a vessel: they must not set white.
PERCENTILES = (0.5, 99.5)
# A slice is nearly empty when fewer than 2 % of its pixels are brighter than a tenth of white.
NEARLY_BLACK, NEARLY_EMPTY = 25, 0.02


class Deep(NamedTuple):
    """A picture of more than 8 bits, of which only the whole set shows what is black and white.

    values: float64, shape (H, W, 1 or 3). NaN is black and infinity is white, whatever the rest is.
    whole: whether they are whole numbers.
    series: whose pictures share a scale of their own, by percentiles; "": that of the set.
    """

    values: np.ndarray
    whole: bool
    series: str = ""


class DeepSquare(NamedTuple):
    """A deep picture in its final size.

    codes: uint16, shape (S, S, 3). 1 to 65534 stand for low to high.
    whole, series: see `Deep`.
    """

    codes: np.ndarray
    low: float
    high: float
    whole: bool
    series: str = ""


def make_square(picture: Image.Image | Deep, size: int, fit: str) -> np.ndarray | DeepSquare:
    """Any picture as a square of 8-bit RGB, shape (size, size, 3), or as a deep square."""
    if isinstance(picture, Deep):
        return deep_square(picture, size, fit)
    return np.asarray(resized(as_rgb(picture), size, fit))


def resized(image: Image.Image, size: int, fit: str) -> Image.Image:
    """Scaled to a square: "crop" cuts the longer side, "squash" scales both."""
    if image.size == (size, size):
        return image
    resize = ImageOps.fit if fit == "crop" else Image.Image.resize
    return resize(image, (size, size), Image.Resampling.LANCZOS)


# More than 8 bits


def deep_square(picture: Deep, size: int, fit: str) -> DeepSquare:
    """Scale a deep picture, and code it by its own darkest and brightest value."""
    finite = np.isfinite(picture.values)
    low, high = (
        float(f(picture.values[finite])) if finite.any() else 0.0 for f in (np.min, np.max)
    )
    step = max(high - low, 1e-12)
    unit = (picture.values.clip(low, high) - low) / step  # infinity becomes 1
    channels = [np.nan_to_num(unit[..., c]).astype(np.float32) for c in range(unit.shape[2])]

    def scaled(channel: np.ndarray) -> np.ndarray:
        return np.asarray(resized(Image.fromarray(channel), size, fit)).clip(0, 1)

    codes = np.stack([1 + 65533 * scaled(channel) for channel in channels], axis=2).round()
    if not finite.all():
        missing, white = np.isnan(picture.values[..., 0]), np.isposinf(picture.values[..., 0])
        codes[scaled(missing.astype(np.float32)) > 0.5] = MISSING
        codes[scaled(white.astype(np.float32)) > 0.5] = WHITE
    codes = np.repeat(codes.astype(np.uint16), 3 // codes.shape[2], axis=2)
    return DeepSquare(codes, low, high, picture.whole, picture.series)


def black_and_white(low: float, high: float, whole: bool) -> tuple[float, float]:
    """The values to show in black and white, of pictures with values from low to high.

    Of whole numbers 0 and the largest of as many bits as they need, 8 to 16; of others 0 and 1 or
    0 and 255 if they look like these. Otherwise the values themselves.
    """
    if low >= 0 and whole and high < 2**16:
        return 0, 2 ** max(8, int(high).bit_length()) - 1
    if low >= 0 and not whole and high <= 1:
        return 0, 1
    if low >= 0 and not whole and 128 <= high <= 255:
        return 0, 255
    return low, high


def values_of(square: DeepSquare) -> np.ndarray:
    """The values for which the codes of a deep square stand, shape (S, S, 3)."""
    return square.low + (square.codes - 1.0) / 65533 * (square.high - square.low)


def to_8_bit(square: DeepSquare, black: float, white: float) -> np.ndarray:
    """The pixels of a deep square, uint8, shape (S, S, 3)."""
    pixels = as_bytes(values_of(square), black, white)
    pixels[square.codes == MISSING], pixels[square.codes == WHITE] = 0, 255
    return pixels


def in_8_bit(picture: Deep) -> Image.Image:
    """A deep picture by itself, at its own scale."""
    finite = picture.values[np.isfinite(picture.values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    black, white = black_and_white(low, high, picture.whole)
    pixels = as_bytes(picture.values, black, white)
    return Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2))


def stretched(picture: Deep, size: tuple[int, int]) -> Deep:
    """A grey deep picture of another width and height. What is missing does not blur the rest."""
    missing = np.isnan(picture.values[..., 0])
    lowest = 0.0 if missing.all() else np.nanmin(picture.values)

    def resize(values: np.ndarray) -> np.ndarray:
        image = Image.fromarray(values.astype(np.float32))
        return np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float64)

    values = resize(np.where(missing, lowest, picture.values[..., 0]))
    values[resize(missing) > 0.5] = np.nan
    return picture._replace(values=values[..., None])


def nearly_empty(pixels: np.ndarray) -> bool:
    """Whether a medical picture, in bytes of any shape, shows nearly nothing."""
    return (pixels > NEARLY_BLACK).mean() < NEARLY_EMPTY


def plausible(across: float, down: float) -> bool:
    """Whether pixels can be so wide and high: the picture is scaled to make them square."""
    small, large = sorted((across, down))
    return 0 < small <= large <= LARGEST_RATIO * small < np.inf


def deep(values: np.ndarray, missing: float | None = None) -> Deep:
    """Numbers of a file, shape (H, W) or (H, W, 3). missing: the one that stands for no data."""
    whole = values.dtype.kind in "iub"
    if values.dtype.kind == "c":
        values = np.abs(values)
    values = values.astype(np.float64).reshape(*values.shape[:2], -1)
    if not whole:
        values[~(np.abs(values) < LARGEST_FLOAT)] = np.nan
    if missing is not None:
        value = missing if whole else np.float32(missing)
        values[(values == value).all(axis=2)] = np.nan
    return Deep(values, whole)


def deep_with_alpha(values: np.ndarray) -> Deep | Image.Image:
    """uint16 (H, W, 2 or 4), the last of which is opacity, laid on white."""
    colour, alpha = values[..., :-1].astype(np.float64), values[..., -1:] / 65535
    if np.isin(alpha, (0, 1)).all():
        return Deep(np.where(alpha > 0, colour, np.inf), whole=True)
    top = black_and_white(0, colour.max(), whole=True)[1]
    pixels = (255 * (colour / top * alpha + 1 - alpha)).round().astype(np.uint8)
    return Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2))


def in_grey(pixels: np.ndarray) -> np.ndarray:
    """RGB bytes (..., 3) -> grey bytes (..., 1), by the weights of ITU-R BT.601, as in Pillow."""
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return grey.round().astype(np.uint8)[..., None]


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers of any shape as bytes: low and below is 0, as is what is no number; high is 255."""
    unit = ((values - low) / max(high - low, 1e-12)).clip(0, 1)
    return (255 * np.nan_to_num(unit)).round().astype(np.uint8)


# Colours


def as_rgb(image: Image.Image) -> Image.Image:
    """Any image of 8 bits as RGB with the colours of sRGB, laid on white, as viewers show it."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = in_8_bit(deep(np.asarray(image)))
    image = in_srgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def in_srgb(image: Image.Image) -> Image.Image:
    """An image with the colours of sRGB, if it has a profile that says what its own are."""
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        return converter(None, "LAB", "RGB").apply(image)
    if not profile:
        return image
    try:
        if image.mode in ("P", "PA", "1"):
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        if image.mode == "LA":
            rgb = in_srgb_of(image.getchannel("L"), profile)
            rgb.putalpha(image.getchannel("A"))
            return rgb
        return in_srgb_of(image, profile)
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged, or of another kind of image
        return image


def in_srgb_of(image: Image.Image, profile: bytes) -> Image.Image:
    """An image with the colours of sRGB, by its profile."""
    transparency = image.info.get("transparency")
    if transparency is not None:
        image = image.convert("RGBA")
    transform = converter(profile, image.mode, "RGBA" if image.mode == "RGBA" else "RGB")
    return transform.apply(image) if transform else image


def with_profile(picture: Image.Image | Deep, profile: bytes | None) -> Image.Image | Deep:
    """A picture and the profile of its colours. Of more than 8 bits only sRGB can be kept: with
    another profile, a picture is scaled by itself.
    """
    with suppress(ImageCms.PyCMSError, OSError, ValueError):  # damaged
        if profile and converter(profile, "RGB", "RGB"):
            picture = in_8_bit(picture) if isinstance(picture, Deep) else picture
            picture.info["icc_profile"] = profile
    return picture


@lru_cache(64)
def converter(profile: bytes | None, mode: str, target: str):
    """The conversion from a profile (None: CIE Lab) to sRGB; None if it is sRGB itself."""
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
    srgb = ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(source, srgb, mode, target, flags=ImageCms.Flags.NOCACHE)
