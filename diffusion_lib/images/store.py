"""A decoded set on disk: an array of bytes, which is memory-mapped, and its index beside it."""

import hashlib
import json
import os
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from diffusion_lib.files import save_file
from diffusion_lib.images.decode import Decoded
from diffusion_lib.images.values import DeepSquare, black_and_white, in_grey, to_8_bit

CHECKED = 2**28  # bytes of a set that its fingerprint reads; of a larger one, blocks of this in all
BLOCKS = 256


def open_set(cached: Path, names: list[str]) -> tuple[np.ndarray, dict] | None:
    """The array and the index of a set, None if it is not there; one that is damaged is removed."""
    if not cached.exists():
        return None
    with suppress(OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError):
        if found := read_set(cached, names):
            return found
    warnings.warn(f"{cached} is damaged: all images are read again", stacklevel=3)
    with suppress(FileNotFoundError):  # another process may have noticed too
        cached.unlink()
    return None


def read_set(cached: Path, names: list[str]) -> tuple[np.ndarray, dict] | None:
    """The array and the index of a set, None if they do not fit to each other and to its files.

    Raises:
        OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError: damage.
    """
    index, check = json.loads(cached.with_suffix(".json").read_bytes())
    # Copy-on-write, because torch warns of arrays that cannot be written to.
    array = np.load(cached, mmap_mode="c")
    counts = index["counts"]
    fits = (
        check == short_hash(json.dumps(index).encode())
        and len(counts) == len(names)
        and sum(counts) == len(array)
        and array.dtype == np.uint8
        and fingerprint(array) == index["fingerprint"]
    )
    return (array, index) if fits else None


def fingerprint(array: np.ndarray) -> str:
    """A short text that differs for other pixels. Of a very large set it reads blocks."""
    content, blocks = array.reshape(-1), [slice(None)]
    if len(content) > CHECKED:
        size = CHECKED // BLOCKS
        blocks = [
            slice(i, i + size) for i in np.linspace(0, len(content) - size, BLOCKS, dtype=int)
        ]
    return short_hash(repr(array.shape).encode(), *(content[block] for block in blocks))


def short_hash(*parts: bytes | np.ndarray) -> str:
    """A text of 32 letters that differs for other bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]


def write_set(
    cached: Path, unfinished: Path, done: Decoded, image_size: int, as_gray: bool
) -> None:
    """Write a set that is decoded, and then its index, which makes it whole."""
    scales, scale = {}, ""
    for whole in {whole for *_, whole, series in done.deep if not series}:
        of_the_set = [deep[1:3] for deep in done.deep if deep[3:] == (whole, "")]
        lows, highs = zip(*of_the_set, strict=True)
        scales[whole, ""] = black_and_white(min(lows), max(highs), whole)
        kind = "whole numbers of more than 8 bits" if whole else "fractional numbers"
        scale += "; of {}, {:g} is black and {:g} is white".format(kind, *scales[whole, ""])
    scales |= {(False, series): values for series, values in done.scales.items()}
    if done.scales:
        scale += f"; {len(done.scales):,} DICOM series without a window, each on a scale of its own"
    array = unfinished / "array.npy"
    write_array(unfinished, array, done, scales, image_size, as_gray)
    file_of = np.searchsorted(np.cumsum(done.counts), done.empty, side="right")
    index = {
        "counts": (done.counts - np.bincount(file_of, minlength=len(done.counts))).tolist(),
        "left_out": done.left_out,
        "unread": done.unread,
        "scale": scale,
        "fingerprint": fingerprint(np.load(array, mmap_mode="r")),
    }
    content = json.dumps([index, short_hash(json.dumps(index).encode())])
    save_file(content.encode(), cached.with_suffix(".json"))
    os.replace(array, cached)


def write_array(
    folder: Path,
    target: Path,
    done: Decoded,
    scales: dict[tuple[bool, str], tuple[float, float]],
    image_size: int,
    as_gray: bool,
) -> None:
    """Decoded bytes (N, S, S, 3) -> an .npy file of shape (N, 1 or 3, S, S)."""
    shape = (image_size, image_size, 3)
    places = [number for number, *_ in done.deep]
    at_a_time = max(1, 2**24 // (3 * image_size**2))
    with (
        open(folder / "rgb", "rb") as upper,
        open(folder / "lower", "rb") as lower,
        open(target, "wb") as file,
    ):
        full = (done.kept, 1 if as_gray else 3, image_size, image_size)
        header = {"descr": "|u1", "fortran_order": False, "shape": full}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, done.images, at_a_time):
            count = min(at_a_time, done.images - first)
            some = np.fromfile(upper, np.uint8, count * 3 * image_size**2).reshape(-1, *shape)
            inside = slice(*np.searchsorted(places, [first, first + count]))
            for number, low, high, *group in done.deep[inside]:
                codes = some[number - first].astype(np.uint16) << 8
                codes |= np.fromfile(lower, np.uint8, 3 * image_size**2).reshape(shape)
                square = DeepSquare(codes, low, high, *group)
                some[number - first] = to_8_bit(square, *scales[tuple(group)])
            some = np.delete(
                some, [e - first for e in done.empty if 0 <= e - first < count], axis=0
            )
            if as_gray:
                some = in_grey(some)
            file.write(np.moveaxis(some, 3, 1).tobytes())
        file.flush()
        os.fsync(file.fileno())  # on the disk before it gets its name
