"""From a folder of images to batches on the device.

Images are decoded once, into one array of bytes in the user's cache folder, which is memory-mapped
from then on: a batch costs a copy of some kilobytes, whatever the files were.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffusion_lib.config import CHANNELS, FITS
from diffusion_lib.errors import InputError
from diffusion_lib.image_files import find_files, is_called_image, read_square

CACHE_VERSION = 1
NEARLY_GREY = 8  # of 255: JPEG leaves a trace of colour in grey images that were saved as RGB


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
    come out as they look in a viewer. Hidden files, and files that are no images, are passed over.
    Broken images are left out, and named in one warning.

    Args:
        path: a folder (searched through its subfolders), a .zip file, or faces, digits or brains.
        image_size: side of the square, in pixels.
        channels: 1 for grey, 3 for colour, "auto" for 1 if there is no colour in any image.
        fit: "crop" scales the shorter side to image_size and cuts out the centre; "squash" scales
            both sides, whatever that does to proportions.
        workers: threads that decode. By default one a core.
        progress: whether to show a bar while decoding.

    Returns:
        Uint8, shape (N, channels, image_size, image_size), in the order of the files' names,
        mapped from a cache file, which is made when it is missing.

    Raises:
        InputError: nothing there, no image in it, or a cache folder that cannot be written to.
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
    if not cached.exists():
        decode = partial(decode_chunk, read=files.read, image_size=image_size, fit=fit)
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
                rgb, finished = Path(folder, "rgb"), Path(folder, "finished.npy")
                grey, broken = decode_all(files.names, decode, rgb, workers, progress)
                warn_of_broken(broken, path)
                if rgb.stat().st_size == 0:
                    raise InputError(f"there is no image in {path} that can be read")
                as_grey = channels == "1" or (channels == "auto" and grey)
                write_array(rgb, finished, image_size, as_grey)
                os.replace(finished, cached)
        except OSError as error:
            raise InputError(
                f"cannot write the decoded images to {cached.parent} ({error.strerror or error}): "
                "set XDG_CACHE_HOME to a folder with room"
            ) from error
    # Copy-on-write, because torch warns of arrays that cannot be written to.
    return torch.from_numpy(np.load(cached, mmap_mode="c"))


def cache_folder() -> Path:
    """Where decoded sets are kept: $XDG_CACHE_HOME/simple-diffusion, by default below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simple-diffusion"


class Chunk(NamedTuple):
    """What became of some files.

    files: how many they were.
    images: those that are images, each (S, S, 3).
    grey: whether all of these are.
    broken: names of images that cannot be read.
    """

    files: int
    images: list[np.ndarray]
    grey: bool
    broken: list[str]


def decode_chunk(
    names: list[str], read: Callable[[str], bytes], image_size: int, fit: str
) -> Chunk:
    """Decode some files, one after the other."""
    images, broken = [], []
    for name in names:
        try:
            image = read_square(read(name), image_size, fit)
        except Exception:  # Pillow raises whatever the bytes of a broken file lead it to
            broken.append(name)
            continue
        if image is not None:
            images.append(image)
        elif is_called_image(name):
            broken.append(name)
    grey = all(np.ptp(image.astype(np.int16), axis=2).max() <= NEARLY_GREY for image in images)
    return Chunk(len(names), images, grey, broken)


def decode_all(
    names: list[str],
    decode: Callable[[list[str]], Chunk],
    target: Path,
    workers: int | None,
    progress: bool,
) -> tuple[bool, list[str]]:
    """Decode files in parallel, and write the images as bytes (N, S, S, 3) to a file.

    Returns:
        Whether all images are grey, and the names of broken ones.
    """
    chunks = [names[first : first + 64] for first in range(0, len(names), 64)]
    grey, broken = True, []
    with (
        open(target, "wb") as file,
        ThreadPoolExecutor(workers or os.cpu_count()) as threads,
        tqdm(total=len(names), desc="reading images", unit="image", disable=not progress) as bar,
    ):
        for first in range(0, len(chunks), 32):  # only so many are held in memory
            for chunk in threads.map(decode, chunks[first : first + 32]):
                file.writelines(image.tobytes() for image in chunk.images)
                grey = grey and chunk.grey
                broken += chunk.broken
                bar.update(chunk.files)
    return grey, broken


def warn_of_broken(names: list[str], path: str | Path) -> None:
    """One warning that names the first ten of the images that were left out."""
    if names:
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        images = "image" if len(names) == 1 else "images"
        warnings.warn(
            f"left out {len(names)} broken {images} of {path}: {', '.join(names[:10])}{more}",
            stacklevel=3,
        )


def write_array(rgb: Path, target: Path, image_size: int, as_grey: bool) -> None:
    """Bytes (N, S, S, 3) of one file -> an .npy file of shape (N, 1 or 3, S, S)."""
    source = np.memmap(rgb, np.uint8, "r").reshape(-1, image_size, image_size, 3)
    shape = (len(source), 1 if as_grey else 3, image_size, image_size)
    array = np.lib.format.open_memmap(target, "w+", np.uint8, shape)
    for first in range(0, len(source), 1024):
        some = source[first : first + 1024]  # (n, S, S, 3)
        if as_grey:
            # The weights of ITU-R BT.601, which Pillow uses for grey too.
            some = (some @ np.array([0.299, 0.587, 0.114], np.float32)).round()[..., None]
        array[first : first + 1024] = np.moveaxis(some, 3, 1)
    array.flush()


def to_images(pixels: Tensor) -> Tensor:
    """Bytes 0..255 -> floats in [-1, 1], any shape. Floats stay."""
    return pixels.float().div(127.5).sub(1) if pixels.dtype == torch.uint8 else pixels


def to_pixels(images: Tensor) -> Tensor:
    """Floats in [-1, 1] -> bytes 0..255, any shape; what lies outside is clipped. Bytes stay."""
    if images.dtype == torch.uint8:
        return images
    return images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)


class BatchStream:
    """An endless stream of shuffled batches, in which batch number k is always the same.

    The stream runs through all images in a random order, then through all of them in another, and
    so on, and is cut into batches of one size. So every image is seen equally often, no batch is
    smaller than the others, and a run that stopped after k batches goes on with batch k.

    Args:
        pixels: uint8 images, shape (N, C, H, W), or floats of any shape (N, ...), used as they are.
        batch_size: B.
        seed: of the order.
        device: where batches go. On a GPU all pixels are kept there if half of what is free
            holds them.
    """

    def __init__(self, pixels: Tensor, batch_size: int, seed: int, device: torch.device):
        if device.type == "cuda" and 2 * pixels.numel() < torch.cuda.mem_get_info(device)[0]:
            pixels = pixels.to(device)
        self.pixels, self.batch_size, self.seed, self.device = pixels, batch_size, seed, device
        self.order = lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> Tensor:
        """The order of images in one epoch: a permutation of 0..N-1."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(len(self.pixels), generator=generator)

    def indices(self, k: int) -> Tensor:
        """Which images batch number k holds, shape (B,)."""
        positions = torch.arange(k * self.batch_size, (k + 1) * self.batch_size)
        epochs, places = positions // len(self.pixels), positions % len(self.pixels)
        return torch.cat(
            [self.order(epoch)[places[epochs == epoch]] for epoch in epochs.unique().tolist()]
        )

    def batch(self, k: int) -> Tensor:
        """Batch number k: float32 in [-1, 1], shape (B, C, H, W) or (B, ...), on the device."""
        some = self.pixels[self.indices(k).to(self.pixels.device)]
        return to_images(some.to(self.device, non_blocking=True))
