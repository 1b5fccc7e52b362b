"""From a folder of images to one array in memory.

Images are decoded once, into one array of bytes in the user's cache folder, which is memory-mapped
from then on: reading a batch copies some kilobytes, whatever the files were. Decoding that was
interrupted, even by a kill, continues where it stopped.
"""

import hashlib
import json
import os
import shutil
import textwrap
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.config import CHANNELS, FITS
from diffusion_lib.errors import InputError
from diffusion_lib.files import load_file, save_file
from diffusion_lib.images.files import find_files, has_image_extension, make_square, read_square
from diffusion_lib.images.medical import check_readers, has_volume_extension, read_medical

try:
    import fcntl
except ImportError:  # Windows: there, do not start two runs at once on a set that is new
    fcntl = None

CACHE_VERSION = 2
CHUNK = 64  # files that a thread decodes at a time
SAVE_SECONDS = 2  # about so much work is lost when decoding is killed
NEARLY_GRAY = 8  # of 255: JPEG leaves a trace of colour in grey images that were saved as RGB


def load_images(
    path: str | Path,
    image_size: int,
    channels: str | int = "auto",
    fit: str = "crop",
    workers: int | None = None,
    progress: bool = False,
) -> Tensor:
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

    Returns:
        Uint8, shape (N, channels, image_size, image_size), in the order of the files' names,
        mapped from a cache file, which is made when it is missing.

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
    unfinished = cached.with_suffix(".unfinished")
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
                    os.replace(array, cached)
                shutil.rmtree(unfinished, ignore_errors=True)
        except OSError as error:
            raise InputError(
                f"cannot write the decoded images to {cached.parent} ({error.strerror or error}): "
                "free some space there, or set XDG_CACHE_HOME to another folder"
            ) from error
    # Copy-on-write, because torch warns of arrays that cannot be written to.
    return torch.from_numpy(np.load(cached, mmap_mode="c"))


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


class Chunk(NamedTuple):
    """The result of decoding some files.

    files: how many.
    images: those that are images, each (S, S, 3).
    gray: whether all of these are.
    broken: names of images that cannot be read, and why.
    """

    files: int
    images: list[np.ndarray]
    gray: bool
    broken: list[tuple[str, str]]


@dataclass
class Decoded:
    """How far the decoding of a set has come.

    files: how many are done.
    size: bytes of the images in them.
    gray: whether all of these are.
    broken: names of images that cannot be read, and why.
    """

    files: int = 0
    size: int = 0
    gray: bool = True
    broken: list[tuple[str, str]] = field(default_factory=list)


def decode_chunk(
    names: list[str], read: Callable[[str], bytes], image_size: int, fit: str
) -> Chunk:
    """Decode some files, one after the other."""
    images, broken = [], []
    for name in names:
        try:
            images += read_squares(name, read, image_size, fit)
        except Exception as error:  # a broken file can raise anything
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            broken.append((name, textwrap.shorten(reason, 200, placeholder=" ...")))
    gray = all(np.ptp(image.astype(np.int16), axis=2).max() <= NEARLY_GRAY for image in images)
    return Chunk(len(names), images, gray, broken)


def read_squares(
    name: str, read: Callable[[str], bytes], image_size: int, fit: str
) -> list[np.ndarray]:
    """The images in a file, each (S, S, 3): mostly one, more in a volume, none if it is no image.

    Raises:
        OSError, ValueError, SyntaxError ...: a broken image.
    """
    content = read(name)
    pictures = read_medical(name, content, read)
    if pictures is not None:
        return [make_square(picture, image_size, fit) for picture in pictures]
    square = read_square(content, image_size, fit)
    if square is None and has_image_extension(name):
        raise ValueError("not an image")
    return [] if square is None else [square]


def decode_all(
    names: list[str],
    decode: Callable[[list[str]], Chunk],
    folder: Path,
    workers: int | None,
    progress: bool,
) -> Decoded:
    """Decode files in parallel, and write the images as bytes (N, S, S, 3) to folder/rgb.

    folder/progress.pth says how many are done. It is written only after the images that it counts,
    so after a kill at any moment, another process can continue.
    """
    record = folder / "progress.pth"
    done = Decoded(**load_file(record)) if record.exists() else Decoded()
    left, workers = names[done.files :], workers or os.cpu_count()
    length = 1 if any(map(has_volume_extension, left)) else CHUNK  # a volume holds many images
    chunks = [left[first : first + length] for first in range(0, len(left), length)]
    with (
        open(folder / "rgb", "ab") as file,
        ThreadPoolExecutor(workers) as threads,
        tqdm(
            total=len(names),
            initial=done.files,
            desc="reading images",
            unit="file",
            disable=not progress,
        ) as bar,
    ):
        file.truncate(done.size)  # what came after the record is decoded again
        saved = time.monotonic()
        for number, chunk in enumerate(bounded_map(threads, decode, chunks, 2 * workers), start=1):
            done.files += chunk.files
            done.size += sum(map(file.write, chunk.images))
            done.gray = done.gray and chunk.gray
            done.broken += chunk.broken
            bar.update(chunk.files)
            if number == len(chunks) or time.monotonic() - saved > SAVE_SECONDS:
                file.flush()
                os.fsync(file.fileno())
                save_file(asdict(done), record)
                saved = time.monotonic()
    return done


def bounded_map(
    threads: ThreadPoolExecutor, function: Callable, items: list, ahead: int
) -> Iterator:
    """threads.map, but with at most `ahead` results waiting in memory."""
    waiting = deque()
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def warn_about_broken(broken: list[tuple[str, str]], path: str | Path) -> None:
    """One warning that names the first ten images that were left out, and each reason once."""
    if not broken:
        return
    named, told = [], set()
    for name, reason in broken[:10]:
        named.append(name if reason in told else f"{name} ({reason})")
        told.add(reason)
    more = f" and {len(broken) - 10} more" if len(broken) > 10 else ""
    images = "image" if len(broken) == 1 else "images"
    warnings.warn(
        f"left out {len(broken)} broken {images} of {path}: {', '.join(named)}{more}", stacklevel=3
    )


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
