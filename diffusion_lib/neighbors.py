"""Exact nearest neighbors among many images, in little memory."""

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.errors import InputError
from diffusion_lib.images.pixels import to_images, to_pixels


class Nearest(NamedTuple):
    """For each image its nearest among others.

    distance: root mean square over all pixels, on the scale of -1 to 1, float32, shape (N,).
    number: which of the others it is, shape (N,).
    second: distance to the nearest but one; infinite if there is only one.
    """

    distance: Tensor
    number: Tensor
    second: Tensor


@torch.no_grad()
def nearest(
    images: Tensor,
    among: Tensor,
    exclude_self: bool | Tensor = False,
    device: torch.device | str = "cpu",
    chunk_bytes: int = 2**26,
) -> Nearest:
    """The nearest of many images to each image, pixel by pixel, as 8 bits show them.

    Distances are exact: between copies they are 0.

    Args:
        images: uint8, or floats in [-1, 1], shape (N, C, H, W).
        among: uint8, or floats in [-1, 1], shape (M, C, H, W); it may be mapped from a file.
        exclude_self: True where both are one set, so that no image is its own nearest. Where
            images are only some of `among`: the index of each in it, shape (N,).
        device: where to compute.
        chunk_bytes: about what a chunk takes of the device's memory.

    Raises:
        InputError: no images, or images of two shapes.
    """
    if len(images) == 0 or len(among) == 0 or images.shape[1:] != among.shape[1:]:
        raise InputError(
            "nearest needs images of the same shape on both sides, not "
            f"{tuple(images.shape)} and {tuple(among.shape)}"
        )
    if exclude_self is True:
        exclude_self = torch.arange(len(images))
    own = None if exclude_self is False else exclude_self.to(device)
    if own is not None and (len(own) != len(images) or len(among) < 2):
        raise InputError(
            f"exclude_self needs one number per image and at least two images to search: "
            f"{len(images)} images have {len(own)} numbers, and there are {len(among)} to search"
        )
    rows = max(1, chunk_bytes // (4 * images[0].numel()))
    found = [
        nearest_of_chunk(
            images[first : first + rows],
            among,
            None if own is None else own[first : first + rows],
            rows,
            device,
        )
        for first in range(0, len(images), rows)
    ]
    return Nearest(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def nearest_of_chunk(
    images: Tensor, among: Tensor, own: Tensor | None, rows: int, device: torch.device | str
) -> Nearest:
    """`nearest` for one chunk of images; `own` are their indices in `among`.

    A matrix product gives all squared distances fast, but only up to rounding. So it proposes the
    four nearest, whose distances are then computed exactly.
    """
    x = as_rows(images, device)  # (n, D)
    best = torch.empty(len(x), 0, device=device)
    numbers = torch.empty(len(x), 0, dtype=torch.long, device=device)
    for first in range(0, len(among), rows):
        y = as_rows(among[first : first + rows], device)  # (m, D)
        squares = torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2)  # (n, m), less |x|^2
        here = torch.arange(first, first + len(y), device=device).expand_as(squares)
        if own is not None:
            squares = squares.masked_fill(here == own[:, None], torch.inf)
        best, numbers = torch.cat([best, squares], dim=1), torch.cat([numbers, here], dim=1)
        best, places = best.topk(min(4, best.shape[1]), largest=False)
        numbers = numbers.gather(1, places)
    exact = torch.stack(
        [
            (x - as_rows(among[some.to(among.device)], device)).square().mean(dim=1).sqrt()
            for some in numbers.T
        ],
        dim=1,
    ).masked_fill(best.isinf(), torch.inf)  # (n, 4)
    exact, places = exact.sort(dim=1)
    second = exact[:, 1] if exact.shape[1] > 1 else torch.full_like(exact[:, 0], torch.inf)
    return Nearest(exact[:, 0].cpu(), numbers.gather(1, places)[:, 0].cpu(), second.cpu())


def as_rows(images: Tensor, device: torch.device | str) -> Tensor:
    """Images as 8 bits show them: (N, C, H, W) -> (N, C H W) in [-1, 1], float32."""
    return to_images(to_pixels(images).to(device)).flatten(1)
