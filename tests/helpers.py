"""What several test files need: images, and calls of a network."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn


def noise_image(seed: int, size: int = 8, grey: bool = False) -> Image.Image:
    """A picture of random pixels, always the same for a seed."""
    shape = (size, size) if grey else (size, size, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def make_images(folder: Path, count: int = 6, size: int = 8, grey: bool = False) -> Path:
    """A folder of `count` PNGs of random pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise_image(i, size, grey).save(folder / f"{i:04d}.png")
    return folder


def record_calls(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """A list that grows by (x, t) with each call of the network."""
    calls = []
    network.register_forward_pre_hook(lambda _, inputs: calls.append(inputs))
    return calls
