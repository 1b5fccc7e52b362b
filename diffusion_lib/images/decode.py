"""Decoding the files of a set in parallel, in such a way that an interruption costs little."""

import os
import textwrap
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from diffusion_lib.files import load_file, save_file
from diffusion_lib.images.files import has_image_extension, make_square, read_square
from diffusion_lib.images.medical import has_volume_extension, read_medical

CHUNK = 64  # files that a thread decodes at a time
SAVE_SECONDS = 2  # about so much work is lost when decoding is killed
NEARLY_GRAY = 8  # of 255: JPEG leaves a trace of colour in grey images that were saved as RGB


class Chunk(NamedTuple):
    """The result of decoding some files.

    counts: how many images each file gave.
    images: all of these, each (S, S, 3).
    gray: whether all of these are.
    broken: names of images that cannot be read, and why.
    """

    counts: list[int]
    images: list[np.ndarray]
    gray: bool
    broken: list[tuple[str, str]]


@dataclass
class Decoded:
    """How far the decoding of a set has come.

    counts: how many images each file gave that is done.
    size: bytes of all of these.
    gray: whether all of these are.
    broken: names of images that cannot be read, and why.
    """

    counts: list[int] = field(default_factory=list)
    size: int = 0
    gray: bool = True
    broken: list[tuple[str, str]] = field(default_factory=list)


def decode_chunk(
    names: list[str], read: Callable[[str], bytes], image_size: int, fit: str
) -> Chunk:
    """Decode some files, one after the other."""
    counts, images, broken = [], [], []
    for name in names:
        before = len(images)
        try:
            images += read_squares(name, read, image_size, fit)
        except Exception as error:  # a broken file can raise anything
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            broken.append((name, textwrap.shorten(reason, 200, placeholder=" ...")))
        counts.append(len(images) - before)
    gray = all(np.ptp(image.astype(np.int16), axis=2).max() <= NEARLY_GRAY for image in images)
    return Chunk(counts, images, gray, broken)


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
    left, workers = names[len(done.counts) :], workers or os.cpu_count()
    length = 1 if any(map(has_volume_extension, left)) else CHUNK  # a volume holds many images
    chunks = [left[first : first + length] for first in range(0, len(left), length)]
    with (
        open(folder / "rgb", "ab") as file,
        ThreadPoolExecutor(workers) as threads,
        tqdm(
            total=len(names),
            initial=len(done.counts),
            desc="reading images",
            unit="file",
            disable=not progress,
        ) as bar,
    ):
        file.truncate(done.size)  # what came after the record is decoded again
        saved = time.monotonic()
        for number, chunk in enumerate(bounded_map(threads, decode, chunks, 2 * workers), start=1):
            done.counts += chunk.counts
            done.size += sum(map(file.write, chunk.images))
            done.gray = done.gray and chunk.gray
            done.broken += chunk.broken
            bar.update(len(chunk.counts))
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
