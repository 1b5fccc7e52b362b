"""From a folder of images to one array in memory.

Images are decoded once, into one array of bytes in the user's cache folder, which is memory-mapped
from then on: reading a batch copies some kilobytes, whatever the files were. Decoding that was
interrupted, even by a kill, continues where it stopped.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diffusion_lib.config import CHANNELS, FITS
from diffusion_lib.errors import InputError
from diffusion_lib.files import save_file
from diffusion_lib.images.decode import decode_all, decode_chunk, warn_about_broken
from diffusion_lib.images.files import find_files, has_image_extension
from diffusion_lib.images.medical import check_readers

try:
    import fcntl
except ImportError:  # Windows: there, do not start two runs at once on a set that is new
    fcntl = None

CACHE_VERSION = 3


class ImageSet(NamedTuple):
    """All images at a path.

    pixels: uint8, shape (N, channels, image_size, image_size), in the order of the files' names,
        mapped from a cache file.
    files: the file of each image, as its path below the folder or in the .zip, with "/". A volume
        gives many images, and its name stands there as many times.
    """

    pixels: Tensor
    files: list[str]


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


def load_image_set(
    path: str | Path,
    image_size: int,
    channels: str | int = "auto",
    fit: str = "crop",
    workers: int | None = None,
    progress: bool = False,
) -> ImageSet:
    """Every image of a folder, a .zip file or a bundled set, square and of one size.

    Grey, palette, transparent (laid on white), CMYK, 16-bit, floating-point and EXIF-rotated images
    come out as they look in a viewer. So do DICOM files, each frame an image, and the axial slices
    in the central half of NIfTI and Analyze volumes; of both, nearly empty slices are left out.
    Hidden files and files that are not images are skipped. Broken images are left out, and named in
    one warning.

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
    recipe = [CACHE_VERSION, image_size, channels, fit, files.fingerprint]
    cached = cache_folder() / f"{hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:32]}.npy"
    index, unfinished = cached.with_suffix(".json"), cached.with_suffix(".unfinished")
    if not cached.exists() or unfinished.exists():  # both, if it was killed just before the end
        decode = partial(decode_chunk, read=files.read, image_size=image_size, fit=fit)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(cached.with_suffix(".lock")):
                if not cached.exists():  # another process may have made it meanwhile
                    others = [name for name in files.names if not has_image_extension(name)]
                    check_readers(others, files.read, path)
                    unfinished.mkdir(exist_ok=True)
                    done = decode_all(files.names, decode, unfinished, workers, progress)
                    warn_about_broken(done.broken, path)
                    if done.size == 0:
                        shutil.rmtree(unfinished)
                        raise InputError(f"there is no image in {path} that can be read")
                    as_gray = channels == "1" or (channels == "auto" and done.gray)
                    array = unfinished / "array.npy"
                    write_array(unfinished / "rgb", array, image_size, as_gray)
                    save_file(json.dumps({"counts": done.counts}).encode(), index)
                    os.replace(array, cached)
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            raise InputError(
                f"cannot write the decoded images to {cached.parent} ({error.strerror or error}): "
                "free some space there, or set XDG_CACHE_HOME to another folder"
            ) from error
    # Copy-on-write, because torch warns of arrays that cannot be written to.
    pixels = torch.from_numpy(np.load(cached, mmap_mode="c"))
    counts = json.loads(index.read_bytes())["counts"]
    return ImageSet(pixels, list(chain.from_iterable(map(repeat, files.names, counts))))


def cache_folder() -> Path:
    """Where decoded sets are kept: $XDG_CACHE_HOME/simple-diffusion, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simple-diffusion"


@contextmanager
def file_lock(lock: Path) -> Iterator[None]:
    """Only one process at a time runs what is inside; the others wait.

    The system unlocks the file when a process ends, however it ends. The file, which is empty,
    stays: if it were removed, one process could lock it while another locks its successor.
    """
    with open(lock, "wb") as file:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_array(rgb: Path, target: Path, image_size: int, as_gray: bool) -> None:
    """Bytes (N, S, S, 3) of one file -> an .npy file of shape (N, 1 or 3, S, S)."""
    image_bytes = image_size * image_size * 3
    count = rgb.stat().st_size // image_bytes
    shape = (count, 1 if as_gray else 3, image_size, image_size)
    with open(rgb, "rb") as source, open(target, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        at_a_time = max(1, 2**24 // image_bytes)
        while content := source.read(at_a_time * image_bytes):
            some = np.frombuffer(content, np.uint8).reshape(-1, image_size, image_size, 3)
            if as_gray:
                # The weights of ITU-R BT.601, which Pillow uses for grey too.
                some = (some @ np.array([0.299, 0.587, 0.114], np.float32)).round()[..., None]
            file.write(np.moveaxis(some, 3, 1).astype(np.uint8).tobytes())
        file.flush()
        os.fsync(file.fileno())  # on the disk before it gets its name
