"""DICOM series without a window in the header: all pictures of one share a scale.

Black and white are percentiles of the values of the whole series, as of a volume. So they are known
when all files are decoded, and only then which slices are nearly empty.
"""

from pathlib import Path

import numpy as np

from diffusion_lib.images.account import leave_out
from diffusion_lib.images.decode import Decoded
from diffusion_lib.images.values import (
    MISSING,
    PERCENTILES,
    DeepSquare,
    nearly_empty,
    to_8_bit,
    values_of,
)

SAMPLED = 2**23  # values of a series, of which percentiles are taken; of a larger one every k-th


def scale_series(done: Decoded, folder: Path, image_size: int) -> None:
    """Find `scales` and `empty` of a set that is decoded into a folder; see `Decoded`."""
    members: dict[str, list[int]] = {}
    for place, (*_, series) in enumerate(done.deep):
        if series:
            members.setdefault(series, []).append(place)
    if not members:
        return
    shape = (-1, image_size, image_size, 3)
    upper, lower = (np.memmap(folder / n, mode="r").reshape(shape) for n in ("rgb", "lower"))

    def square(place: int) -> DeepSquare:
        number, *rest = done.deep[place]
        codes = upper[number, ..., :1].astype(np.uint16) << 8 | lower[place, ..., :1]
        return DeepSquare(codes, *rest)

    for series, places in members.items():
        step = 1 + len(places) * image_size**2 // SAMPLED
        values = np.concatenate([scanned(square(place))[::step] for place in places])
        black, white = np.percentile(values, PERCENTILES) if values.size else (0.0, 1.0)
        done.scales[series] = float(black), float(white)
        dark = [p for p in places if nearly_empty(to_8_bit(square(p), black, white))]
        done.empty += [done.deep[place][0] for place in dark]
    done.empty.sort()
    if done.empty:
        leave_out(done.left_out, "empty", "", count=len(done.empty))


def scanned(square: DeepSquare) -> np.ndarray:
    """The values of a square without those that stand for nothing, shape (n,)."""
    return values_of(square)[square.codes != MISSING]
