"""Decoding the files of a set in parallel, in such a way that an interruption costs little."""

import os
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from diffusion_lib.errors import InputError
from diffusion_lib.files import load_file, save_file
from diffusion_lib.images.account import LeftOut, is_own, leave_out, merged
from diffusion_lib.images.files import begins_like_image, read_pictures
from diffusion_lib.images.formats import has_image_extension, kind_by_content, kind_by_extension
from diffusion_lib.images.medical import has_volume_extension, medical_format, read_medical
from diffusion_lib.images.values import DeepSquare, make_square

LARGE = 2**26  # bytes: more than this is read only of what begins like an image
CHUNK = 64  # files that a thread decodes at a time
SAVE_SECONDS = 2  # about so much work is lost when decoding is killed
NAMED = ("damaged", "unread")  # kinds that are told with the reason
NEARLY_GRAY = 8  # of 255: JPEG leaves a trace of colour in grey images that were saved as RGB


class Chunk(NamedTuple):
    """The result of decoding some files.

    counts: how many images each file gave.
    images: all of these, each (S, S, 3); of a deep one the upper bytes of its codes.
    lower: the lower bytes of the deep ones.
    deep: of each deep one its number among the images, low, high, whole and series; see
        `DeepSquare`.
    gray: whether all images are.
    left_out: what gave none.
    unread: files that the system could not read, which may be over at the next start.
    """

    counts: list[int]
    images: list[np.ndarray]
    lower: list[np.ndarray]
    deep: list[tuple[int, float, float, bool, str]]
    gray: bool
    left_out: LeftOut
    unread: list[str]


@dataclass
class Decoded:
    """How far the decoding of a set has come; see `Chunk`. Images are on disk.

    scales: of each series of deep images the values that are black and white, known at the end.
    empty: the numbers of its images that show nearly nothing, which are not kept.
    """

    counts: list[int] = field(default_factory=list)
    deep: list[tuple[int, float, float, bool, str]] = field(default_factory=list)
    gray: bool = True
    left_out: LeftOut = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)
    empty: list[int] = field(default_factory=list)

    @property
    def images(self) -> int:
        return sum(self.counts)

    @property
    def kept(self) -> int:
        return self.images - len(self.empty)


def decode_chunk(
    names: list[str],
    stop: Event,
    read: Callable[..., bytes],
    image_size: int,
    fit: str,
    own: bool = False,
) -> Chunk:
    """Decode some files, one after the other.

    Args:
        stop: is set when nobody waits for the rest any more.
        own: whether to take this program's pictures.
    """
    counts, images, lower, deep, gray, left_out, unread = [], [], [], [], True, {}, []

    def read_or_note(name: str, size: int = -1) -> bytes:
        try:
            return read(name, size)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                unread.append(name)
            raise

    for name in names:
        if stop.is_set():
            break
        before, unread_before = len(images), len(unread)
        try:
            for square in read_squares(name, read_or_note, image_size, fit, own, left_out):
                if isinstance(square, DeepSquare):
                    deep.append((len(images), *square[1:]))
                    lower.append((square.codes & 255).astype(np.uint8))
                    square = (square.codes >> 8).astype(np.uint8)
                images.append(square)
                gray = gray and np.ptp(square.astype(np.int16), axis=2).max() <= NEARLY_GRAY
        except Exception as error:  # a broken file can raise anything
            kind = None if has_volume_extension(name) else kind_by_extension(name)
            kind = "unread" if len(unread) > unread_before else kind or "damaged"
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            reason = textwrap.shorten(reason, 200, placeholder=" ...")
            leave_out(left_out, kind, name, reason if kind in NAMED else "")
        counts.append(len(images) - before)
    return Chunk(counts, images, lower, deep, bool(gray), left_out, unread)


def read_squares(
    name: str, read: Callable[..., bytes], image_size: int, fit: str, own: bool, left_out: LeftOut
) -> Iterator[np.ndarray | DeepSquare]:
    """The images in a file: mostly one, more in a volume, none if it is no image.

    Raises:
        OSError, ValueError, SyntaxError ...: a broken image.
    """
    content = read(name, LARGE)
    kind = kind_by_extension(name)
    if kind == "raw":  # most are TIFFs, with a preview
        leave_out(left_out, kind, name)
        return
    if len(content) == LARGE and (medical_format(name, content) or begins_like_image(content)):
        content = read(name)
    pictures = read_medical(name, content, read, left_out)
    if pictures is None and not own and is_own(content):
        leave_out(left_out, "own", name)
        return
    medical, none = pictures is not None, True
    if pictures is None:
        pictures = read_pictures(content, image_size, name, left_out)
    for picture in pictures:
        none = False
        yield make_square(picture, image_size, fit)
    if none and not medical:
        kind = kind_by_content(content) or kind
        if kind is None and has_image_extension(name):
            raise ValueError("not an image")
        leave_out(left_out, kind or "other", name)


def decode_all(
    names: list[str],
    decode: Callable[[list[str], Event], Chunk],
    folder: Path,
    image_size: int,
    workers: int | None,
    progress: bool,
) -> Decoded:
    """Decode files in parallel, and write the images as bytes (N, S, S, 3) to folder/rgb.

    folder/progress.pth says how many are done. It is written only after the images that it counts,
    so after a kill at any moment, another process can continue.
    """
    done = decoded_before(folder, image_size)
    left, workers = names[len(done.counts) :], workers or os.cpu_count()
    length = 1 if any(map(has_volume_extension, left)) else CHUNK  # a volume holds many images
    chunks = [left[first : first + length] for first in range(0, len(left), length)]
    stop = Event()
    with (
        open(folder / "rgb", "ab") as file,
        open(folder / "lower", "ab") as lower,
        ThreadPoolExecutor(workers) as threads,
        ExitStack() as at_end,
        tqdm(
            total=len(names),
            initial=len(done.counts),
            desc="reading images",
            unit="file",
            disable=not progress,
        ) as bar,
    ):
        at_end.callback(stop.set)  # after Ctrl-C no thread begins another file
        saved, images = time.monotonic(), done.images
        decoded = bounded_map(threads, partial(decode, stop=stop), chunks, 2 * workers)
        for number, chunk in enumerate(decoded, start=1):
            done.counts += chunk.counts
            done.deep += [(images + i, *values) for i, *values in chunk.deep]
            images += len(chunk.images)
            file.writelines(image.tobytes() for image in chunk.images)
            lower.writelines(codes.tobytes() for codes in chunk.lower)
            done.gray = done.gray and chunk.gray
            done.left_out = merged(done.left_out, chunk.left_out)
            done.unread += chunk.unread
            bar.update(len(chunk.counts))
            if number == len(chunks) or time.monotonic() - saved > SAVE_SECONDS:
                for target in (file, lower):
                    target.flush()
                    os.fsync(target.fileno())
                save_file(asdict(done), folder / "progress.pth")
                saved = time.monotonic()
    return done


def decoded_before(folder: Path, image_size: int) -> Decoded:
    """What was decoded before an interruption. What came after the record is decoded again."""
    parts = {folder / "rgb": 0, folder / "lower": 0}
    done = Decoded()
    try:
        done = Decoded(**load_file(folder / "progress.pth"))
        sizes = [image_size**2 * 3 * count for count in (done.images, len(done.deep))]
        if all(part.stat().st_size >= size for part, size in zip(parts, sizes, strict=True)):
            parts = dict(zip(parts, sizes, strict=True))
        else:  # after a power cut
            done = Decoded()
    except (InputError, OSError, TypeError):  # there is none, or it is damaged
        done = Decoded()
    for part, size in parts.items():
        with open(part, "ab") as file:
            file.truncate(size)
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
