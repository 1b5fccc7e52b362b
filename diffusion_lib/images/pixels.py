"""Images are bytes on disk and in memory, and floats in [-1, 1] for a network."""

import torch
from torch import Tensor


def to_images(pixels: Tensor) -> Tensor:
    """Bytes 0..255 -> floats in [-1, 1], any shape. Floats are returned as they are."""
    return pixels.float().div(127.5).sub(1) if pixels.dtype == torch.uint8 else pixels


def to_pixels(images: Tensor) -> Tensor:
    """Floats in [-1, 1] -> bytes 0..255, any shape, clipped. Bytes are returned as they are."""
    if images.dtype == torch.uint8:
        return images
    return images.clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
