"""Exercises of page 00: start here."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say, several

_random = torch.Generator().manual_seed(0)
_a, _b = torch.randn(2, 4, 3, 5, 5, generator=_random)
_b = _b + torch.tensor([0.0, 0.5, -1.0, 2.0]).view(-1, 1, 1, 1)


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


# What may be wrong with an answer, in three places; the right choice comes first.
_INSIDE = [
    (lambda a, b: (a - b).square(), ""),
    (lambda a, b: (a - b).abs(), "square the differences instead of taking absolute values"),
    (lambda a, b: a - b, "brighter and darker pixels cancel out: square before you sum"),
    (
        lambda a, b: a.square() - b.square(),
        "(a - b)^2 is not a^2 - b^2: subtract the images first",
    ),
]
_POOL = [
    (_mean, ""),
    (lambda values: values.flatten(1).sum(1), "a sum grows with the number of pixels: take a mean"),
]
_OUTSIDE = [
    (lambda values: values.abs().sqrt(), ""),
    (lambda values: values, "take the root at the end: it is in the units of the pixels"),
]


def _differences() -> list[tuple[Callable, str]]:
    """All wrong choices together, two or three at a time."""
    found = []
    for (inside, one), (pool, two), (outside, three) in product(_INSIDE, _POOL, _OUTSIDE):
        said = list(filter(None, (one, two, three)))
        if len(said) > 1:

            def mistake(a: Tensor, b: Tensor, inside=inside, pool=pool, outside=outside) -> Tensor:
                return outside(pool(inside(a, b)))

            found.append((mistake, several(said)))
    return found


_difference = Exercise(
    answer=lambda a, b: _mean((a - b).square()).sqrt(),
    mistakes=[
        (
            lambda a, b: _mean((a - b).square()),
            "that is the mean squared difference: its root is in the units of the pixels.",
        ),
        (
            lambda a, b: _mean((a - b).abs()),
            "that is the mean of the absolute differences: square them, and take the root of the "
            "mean.",
        ),
        (
            lambda a, b: _mean((a - b).abs()).sqrt(),
            "square the differences instead of taking their absolute values.",
        ),
        (
            lambda a, b: _mean(a - b),
            "brighter and darker pixels cancel out: square each difference before the mean.",
        ),
        (
            lambda a, b: _mean(a - b).abs(),
            "the square is taken after the mean, where brighter and darker pixels have already "
            "cancelled out.",
        ),
        (
            lambda a, b: (a - b).square().flatten(1).sum(1).sqrt(),
            "that is the distance, which grows with the number of pixels: take the mean of the "
            "squares, not the sum.",
        ),
        (
            lambda a, b: (a - b).square().flatten(1).sum(1).sqrt() / a[0].numel(),
            "divide the sum by the number of pixels before the root, not after it.",
        ),
        (
            lambda a, b: (_mean(a.square()) - _mean(b.square())).abs().sqrt(),
            "(a - b)^2 is not a^2 - b^2: subtract the images first.",
        ),
        *_differences(),
    ],
    cases=[(_a, _b), (_b[:2], _b[2:])],
    if_nan="some of it is nan: the root of a negative number. Square before you take the mean.",
)


def _nearest(sample: Tensor, images: Tensor) -> int:
    return int((images - sample).square().flatten(1).sum(1).argmin())


_random = torch.Generator().manual_seed(1)
_contrast = torch.linspace(0.3, 2, 30).view(-1, 1, 1, 1)
_library = _contrast * torch.randn(30, 3, 4, 4, generator=_random)
_queries = [
    _library[k] + 0.5 * torch.randn(3, 4, 4, generator=_random) + offset
    for k, offset in ((3, 0.0), (11, 0.8), (29, -0.5), (20, 0.2))
]

# How images are compared, what is wrong with it, and the sign that makes the most alike the least.
_MEASURES = [
    (lambda sample, images: (images - sample).square().flatten(1).sum(1), ""),
    (
        lambda sample, images: (images - sample).flatten(1).sum(1),
        "without a square (or an absolute value), brighter and darker pixels cancel out",
    ),
    (
        lambda sample, images: (images - sample).flatten(1).sum(1).abs(),
        "sums compare only the mean brightness: square each pixel's difference first",
    ),
    (
        lambda sample, images: -(images * sample).flatten(1).sum(1),
        "a dot product also grows with the contrast of an image: compare differences",
    ),
]
_CHOICES = [
    (lambda values: int(values.argmin()), ""),
    (lambda values: int(values.argmax()), "you take the image that is least alike"),
    (lambda values: values.min(), "return the number of the image, by `argmin`, not the distance"),
    (
        lambda values: values.max(),
        "return the number of the image that is most alike, not the distance of the one that is "
        "least",
    ),
]


def _nearests() -> list[tuple[Callable, str]]:
    """Wrong choices together."""
    found = []
    for (measure, one), (choose, two) in product(_MEASURES, _CHOICES):
        said = list(filter(None, (one, two)))
        if len(said) > 1 or choose is _CHOICES[-1][0]:

            def mistake(sample: Tensor, images: Tensor, measure=measure, choose=choose):
                return choose(measure(sample, images))

            found.append((mistake, several(said)))
    return found


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
        *_nearests(),
    ],
    cases=[(query, _library) for query in _queries],
)


def check_difference(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """difference(a, b) -> the root mean square difference of each pair of images, shape (N,)."""
    say(_difference.judge(function), function)


def check_nearest(function: Callable[[Tensor, Tensor], int]) -> None:
    """nearest(sample, images) -> which of the images is nearest to the sample, an int."""
    say(_nearest_image.judge(function), function)
