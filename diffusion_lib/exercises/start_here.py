"""Exercises of page 00: start here."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise

_random = torch.Generator().manual_seed(0)
_images = torch.randn(4, 3, 5, 5, generator=_random) * 0.8  # some of it beyond [-1, 1]


def _to_bytes(images: Tensor) -> Tensor:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _wrapped(values: Tensor) -> Tensor:
    """What becomes of values beyond 0..255 in a byte: they start again from the other end."""
    return values.round().long().remainder(256).to(torch.uint8)


_bytes = Exercise(
    answer=_to_bytes,
    mistakes=[
        (
            lambda images: _wrapped((images + 1) * 127.5),
            "values beyond [-1, 1] wrap around, so that the brightest pixels turn black: clamp "
            "them first.",
        ),
        (
            lambda images: ((images.clamp(-1, 1) + 1) * 127.5).to(torch.uint8),
            "a conversion to bytes cuts the fraction off, which makes every image a little too "
            "dark: round first.",
        ),
        (
            lambda images: (images.clamp(0, 1) * 255).round().to(torch.uint8),
            "everything darker than middle grey is black: you took the range to be [0, 1], but it "
            "is [-1, 1].",
        ),
        (
            lambda images: (images.clamp(-1, 1) * 127.5).round().clamp(0, 255).to(torch.uint8),
            "-1 should become 0 and 0 should become 127 or 128: add 1 before you scale.",
        ),
        (
            lambda images: ((images.clamp(-1, 1) + 1) * 128).clamp(max=255).round().byte(),
            "you scale by 128, and 1 becomes 256; from 0 to 255 there are 255 steps, so scale by "
            "127.5.",
        ),
    ],
    cases=[(_images,), (torch.tensor([[[[-1.0, 0.0, 1.0, 0.506]]]]),)],
)


def _nearest(sample: Tensor, images: Tensor) -> int:
    return int((images - sample).square().flatten(1).sum(1).argmin())


_contrast = torch.linspace(0.3, 2, 30).view(-1, 1, 1, 1)
_library = _contrast * torch.randn(30, 3, 4, 4, generator=_random)
_queries = [
    _library[k] + 0.5 * torch.randn(3, 4, 4, generator=_random) + offset
    for k, offset in ((3, 0.0), (11, 0.8), (29, -0.5))
]

_nearest_image = Exercise(
    answer=_nearest,
    mistakes=[
        (
            lambda sample, images: int((images - sample).square().flatten(1).sum(1).argmax()),
            "that is the image farthest away: take the least distance, not the greatest.",
        ),
        (
            lambda sample, images: (images - sample).square().flatten(1).sum(1).min(),
            "that is the distance itself; asked for is the number of the image that has it: "
            "`argmin`.",
        ),
        (
            lambda sample, images: int((images - sample).flatten(1).sum(1).argmin()),
            "without a square (or an absolute value), brighter and darker pixels cancel out.",
        ),
        (
            lambda sample, images: int((images - sample).flatten(1).sum(1).abs().argmin()),
            "you compare the sums, that is, only the mean brightness: square each pixel's "
            "difference before you sum.",
        ),
        (
            lambda sample, images: int((images * sample).flatten(1).sum(1).argmax()),
            "a dot product also grows with the contrast of an image: compare differences.",
        ),
        (
            lambda sample, images: int((images - sample).square().argmin()),
            "that is the nearest single number among all of them: sum over each image first, with "
            "`flatten(1)`.",
        ),
    ],
    cases=[(query, _library) for query in _queries],
)


def check_to_bytes(function: Callable[[Tensor], Tensor]) -> None:
    """to_bytes(images) -> uint8, shape of images, for floats of which [-1, 1] is the range."""
    print(_bytes.judge(function))


def check_nearest(function: Callable[[Tensor, Tensor], int]) -> None:
    """nearest(sample, images) -> which of the images is nearest to the sample, an int."""
    print(_nearest_image.judge(function))
