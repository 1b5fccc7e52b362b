"""From a folder of images to one array in memory.

Images are decoded once, into one array of bytes in the user's cache folder, which is memory-mapped
from then on: reading a batch copies some kilobytes, whatever the files were. Decoding that was
interrupted, even by a kill, continues where it stopped.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_lib import distributed
from diffusion_lib.cli import printable
from diffusion_lib.config import CHANNELS, FITS
from diffusion_lib.errors import InputError, did_you_mean_path
from diffusion_lib.files import first_line
from diffusion_lib.images.account import account, is_missed, merged
from diffusion_lib.images.decode import Decoded, decode_all, decode_chunk
from diffusion_lib.images.files import read_square
from diffusion_lib.images.folders import FolderFiles, ZipFiles, find_files
from diffusion_lib.images.formats import has_image_extension, plugins
from diffusion_lib.images.medical import check_readers
from diffusion_lib.images.series import scale_series
from diffusion_lib.images.store import open_set, write_set
from diffusion_lib.images.values import in_grey
from diffusion_lib.locks import locked

CACHE_VERSION = 7


class ImageSet(NamedTuple):
    """All images at a path.

    pixels: uint8, shape (N, channels, image_size, image_size), in the order of the files' names,
        mapped from a cache file.
    files: the file of each image, as its path below the folder or in the .zip, with "/". A volume
        gives many images, and its name stands there as many times.
    summary: one line that accounts for all that lies at the path: how many images, and what was
        left out.
    """

    pixels: Tensor
    files: list[str]
    summary: str


def load_images(
    path: str | Path,
    image_size: int,
    channels: str | int = "auto",
    fit: str = "crop",
    workers: int | None = None,
    progress: bool = False,
) -> Tensor:
    """Every image of a folder, a .zip file or a bundled set: the pixels of `load_image_set`."""
    return load_image_set(path, image_size, channels, fit, workers, progress).pixels


def load_image(
    path: str | Path, image_size: int, channels: str | int = 3, fit: str = "crop"
) -> Tensor:
    """One image file, as `load_images` reads those of a folder: uint8, (channels, S, S).

    channels: 1 or 3.

    Raises:
        InputError: no such file, or not an image.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"there is no image {path}{did_you_mean_path(path)}")
    try:
        square = read_square(path.read_bytes(), image_size, fit)
    except Exception as error:  # a damaged file can raise anything
        raise InputError(f"{path} is damaged: {first_line(error)}") from error
    if square is None:
        raise InputError(f"{path} is not an image that can be read here: save it as PNG")
    pixels = in_grey(square) if str(channels) == "1" else square
    return torch.from_numpy(np.moveaxis(pixels, 2, 0).copy())


def load_image_set(
    path: str | Path,
    image_size: int,
    channels: str | int = "auto",
    fit: str = "crop",
    workers: int | None = None,
    progress: bool = False,
) -> ImageSet:
    """Every image of a folder, a .zip file or a bundled set, square and of one size.

    Grey, palette, transparent (laid on white), CMYK, floating-point and EXIF-rotated images come
    out as they look in a viewer, with the colours of sRGB. Those of more than 8 bits share one
    scale in the whole set, DICOM files without a window one in their series. Every page of a TIFF
    is an image, and every frame of a DICOM file, and of NIfTI and Analyze volumes the axial slices
    in the central half. Left out are nearly empty slices, hidden files, what systems keep beside
    photos, and, unless there is nothing else, pictures that this program made.

    The summary accounts for all of it. It is a warning if an image may have been lost: a damaged
    file, one that cannot be read here, a folder without permission. Otherwise it is printed, with
    `progress`. A file that the system could not read is tried again by the next call.

    When it is stopped while decoding, the next call continues from there. A call for a set that
    another process is decoding waits for it.

    Args:
        path: a folder (with its subfolders), a .zip file, or the name of a bundled set.
        image_size: side of the square, in pixels.
        channels: 1 for grey, 3 for colour, "auto" for 1 if there is no colour in any image.
        fit: "crop" scales the shorter side to image_size and cuts out the centre; "squash" scales
            both sides, whatever that does to proportions.
        workers: threads that decode. By default one per core.
        progress: whether to show a bar while decoding.

    Raises:
        InputError: no such path, no image in it, medical files whose reader is not installed, or a
            cache folder that cannot be written to.
    """
    channels = str(channels)
    if channels not in CHANNELS:
        raise InputError(f"channels must be {', '.join(CHANNELS)}, not {channels!r}")
    if fit not in FITS:
        raise InputError(f"fit must be {' or '.join(FITS)}, not {fit!r}")
    if image_size < 1:
        raise InputError(f"the image size must be at least 1, not {image_size}")
    files = find_files(path)
    cached = cached_file([image_size, channels, fit, files.fingerprint, plugins()])
    unfinished = cached.with_suffix(".unfinished")
    found = open_set(cached, files.names)
    if found and any(can_be_read(name, files.read) for name in found[1]["unread"]):
        cached.unlink(missing_ok=True)
        found = None
    if found is None or unfinished.exists():  # both, if it was killed just before the end
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with locked(cached.with_suffix(".lock")):
                found = open_set(cached, files.names)
                if found is None:  # another process may have made it meanwhile
                    unfinished.mkdir(exist_ok=True)
                    done = decode_files(files, unfinished, image_size, fit, workers, progress)
                    if not done.kept:
                        shutil.rmtree(unfinished)
                        left = account(0, 0, merged(files.left_out, done.left_out))
                        raise InputError(printable(f"{path} has no image that can be read: {left}"))
                    as_gray = channels == "1" or (channels == "auto" and done.gray)
                    write_set(cached, unfinished, done, image_size, as_gray)
                    found = open_set(cached, files.names)
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            raise InputError(
                f"cannot write the decoded images to {cached.parent} ({error.strerror or error}): "
                "free some space there, or set XDG_CACHE_HOME to another folder"
            ) from error
    array, index = found
    left_out = merged(files.left_out, index["left_out"])
    counts = index["counts"]
    line = account(len(array), sum(map(bool, counts)), left_out)
    summary = printable(f"{path}: {line}{index['scale']}")
    if is_missed(left_out) and distributed.rank() == 0:
        warnings.warn(summary, stacklevel=3)
    elif progress:
        print(summary)
    names = list(chain.from_iterable(map(repeat, files.names, counts)))
    return ImageSet(torch.from_numpy(array), names, summary)


def can_be_read(name: str, read: Callable[[str], bytes]) -> bool:
    """Whether a file can be read that could not, as after a fault of a network disk."""
    try:
        read(name)
    except OSError:
        return False
    return True


def decode_files(
    files: FolderFiles | ZipFiles,
    unfinished: Path,
    image_size: int,
    fit: str,
    workers: int | None,
    progress: bool,
) -> Decoded:
    """Decode a set into a folder. This program's own pictures are read if there are no others."""
    others = [name for name in files.names if not has_image_extension(name)]
    check_readers(others, files.read, files.path)
    decode = partial(decode_chunk, read=files.read, image_size=image_size, fit=fit)
    how = (unfinished, image_size, workers, progress)
    done = decode_all(files.names, decode, *how)
    if not done.images and "own" in done.left_out:
        shutil.rmtree(unfinished)
        unfinished.mkdir()
        done = decode_all(files.names, partial(decode, own=True), *how)
    scale_series(done, unfinished, image_size)
    return done


def cached_file(recipe: list) -> Path:
    """The cache file of a set, by all that its pixels depend on."""
    text = json.dumps([CACHE_VERSION, *recipe])
    return cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"


def cache_folder() -> Path:
    """Where decoded sets are kept: $XDG_CACHE_HOME/simple-diffusion, by default below ~/.cache.

    Where nobody knows the home folder, as in some containers, it is a temporary one.
    """
    try:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        parent = Path(tempfile.gettempdir(), f"cache-{getattr(os, 'getuid', int)()}")
        warnings.warn(
            f"the home folder is unknown: decoded images are kept in {parent}; set XDG_CACHE_HOME "
            "to keep them elsewhere",
            stacklevel=2,
        )
    return parent / "simple-diffusion"
