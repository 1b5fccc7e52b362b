"""Image files of every kind, and their content as pictures."""

import io
import zlib
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from diffusion_lib.images.account import LeftOut, leave_out
from diffusion_lib.images.formats import readable_formats
from diffusion_lib.images.tiffs import is_tiff, read_tiff
from diffusion_lib.images.values import (
    Deep,
    DeepSquare,
    black_and_white,
    deep,
    deep_with_alpha,
    make_square,
    to_8_bit,
    with_profile,
)

PNG_START, GREY, GREY_ALPHA, COLOUR_ALPHA = b"\x89PNG\r\n\x1a\n", 0, 4, 6


def read_square(content: bytes, image_size: int, fit: str) -> np.ndarray | None:
    """One file's content as an image.

    Args:
        content: of any file.
        image_size: side of the square, in pixels.
        fit: "crop" or "squash", see `load_image_set`.

    Returns:
        Uint8, shape (image_size, image_size, 3), or None if this is not an image. Of several
        pages the first; more than 8 bits are shown at the image's own scale.

    Raises:
        OSError, ValueError, SyntaxError ...: a broken image.
    """
    picture = next(read_pictures(content, image_size), None)
    if picture is None:
        return None
    square = make_square(picture, image_size, fit)
    if isinstance(square, DeepSquare):
        return to_8_bit(square, *black_and_white(square.low, square.high, square.whole))
    return square


def read_pictures(
    content: bytes, image_size: int, name: str = "", left_out: LeftOut | None = None
) -> Iterator[Image.Image | Deep]:
    """The pictures in a file: one, none if it is no image, or all pages of a TIFF.

    Args:
        content: of any file.
        image_size: at least twice this size is kept of a large JPEG.
        name: of the file.
        left_out: counts what is not a picture of its own, such as later frames of an animation.

    Raises:
        OSError, ValueError, SyntaxError ...: a broken image.
    """
    left_out = {} if left_out is None else left_out
    if is_tiff(content):
        yield from read_tiff(content, name, left_out)
        return
    try:
        image = Image.open(io.BytesIO(content), formats=readable_formats())
    except UnidentifiedImageError:
        if content.startswith(PNG_START):
            sound = without_damaged_notes(content)
            if sound == content:
                raise ValueError("its header is damaged") from None
            yield from read_pictures(sound, image_size, name, left_out)
        return
    if image.format in ("GIF", "PNG", "WEBP", "AVIF") and getattr(image, "is_animated", False):
        leave_out(left_out, "frames", name, count=image.n_frames - 1)
    # A JPEG decodes faster at a fraction of its size; twice ours is enough for antialiasing.
    image.draft(None, (2 * image_size, 2 * image_size))
    yield read_image(image, content)


def without_damaged_notes(content: bytes) -> bytes:
    """A PNG without the chunks that a picture does not need and whose checksum is wrong."""
    kept, at = [content[:8]], 8
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        chunk, needed = content[at:end], content[at + 4 : at + 5].isupper()
        if needed or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big"):
            kept.append(chunk)
        at = end
    return b"".join(kept)


def begins_like_image(head: bytes) -> bool:
    """Whether a file may be an image, by its first bytes."""
    with suppress(OSError, SyntaxError, ValueError):
        return is_tiff(head) or Image.open(io.BytesIO(head), formats=readable_formats()) is not None
    return False


def read_image(image: Image.Image, content: bytes) -> Image.Image | Deep:
    """A picture that Pillow has opened, upright."""
    bits, kind = (content[24], content[25]) if content.startswith(PNG_START) else (8, 0)
    if bits == 16 and kind != GREY:
        picture = read_deep_png(content, image.info.get("transparency"))
        return with_profile(picture, image.info.get("icc_profile"))
    if image.format == "TGA" and image.mode == "RGBA" and not content[17] & 15:
        image = image.convert("RGB")  # the fourth byte is no opacity
    image.load()
    with suppress(Exception):  # a damaged Exif block says nothing of the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode != "F" and not image.mode.startswith("I"):
        return image
    picture = deep(np.asarray(image))
    if bits == 16 and (transparent := image.info.get("transparency")) is not None:
        picture.values[picture.values == transparent] = np.inf
    return picture


def read_deep_png(content: bytes, transparent: tuple[int, ...] | None) -> Image.Image | Deep:
    """A PNG of 16 bits with colour or opacity, of which Pillow keeps the upper 8.

    Its decoder can be told to unpack the lower bytes: what is upper in the order of Intel. Grey
    with opacity has four bytes a pixel, as 8-bit RGBA has.
    """
    if content[25] == GREY_ALPHA:
        values = unpacked(content, "RGBA").astype(np.uint16)
        return deep_with_alpha(values[..., ::2] << 8 | values[..., 1::2])
    mode = "RGBA" if content[25] == COLOUR_ALPHA else "RGB"
    upper, lower = (unpacked(content, f"{mode};16{order}").astype(np.uint16) for order in "BL")
    if mode == "RGBA":
        return deep_with_alpha(upper << 8 | lower)
    picture = deep(upper << 8 | lower)
    if transparent is not None:
        picture.values[(picture.values == transparent).all(axis=2)] = np.inf
    return picture


def unpacked(content: bytes, layout: str) -> np.ndarray:
    """The pixels of a PNG, of whose bytes the decoder is told this layout."""
    image = Image.open(io.BytesIO(content), formats=["PNG"])
    image.tile = [(decoder, box, offset, layout) for decoder, box, offset, _ in image.tile]
    image.info.pop("transparency", None)
    return np.asarray(image)
