"""Exercises of page 08: full runs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise


def _epochs(passes: float = 3, a_unit: float = 3600, rounded: Callable = math.floor) -> Callable:
    def epochs(
        hours: float, images: int, operations: float, speed: float, share: float
    ) -> float | int:
        return rounded(hours * a_unit * share * speed / (images * passes * operations))

    return epochs


_epochs_in = Exercise(
    answer=_epochs(),
    mistakes=[
        (
            _epochs(passes=1),
            "that counts the forward pass only: with the backward pass a step costs three times "
            "as much.",
        ),
        (
            _epochs(passes=2),
            "the backward pass is twice as dear as the forward pass, not as dear: it computes the "
            "gradients of what came in and of the weights.",
        ),
        (
            lambda hours, images, operations, speed, share: _epochs()(
                hours, images, operations, speed, 1.0
            ),
            "that is at the card's full speed: it reaches a share of it.",
        ),
        (
            lambda hours, images, operations, speed, share: _epochs()(
                hours, images, operations, speed, 1 / share
            ),
            "the share makes the card slower, so that fewer epochs are done: multiply its speed "
            "by it.",
        ),
        (_epochs(a_unit=60), "an hour has 3600 seconds; you took minutes."),
        (_epochs(rounded=math.ceil), "whole epochs that are done: round down."),
        (_epochs(rounded=round), "whole epochs that are done: round down, whatever is left over."),
        (_epochs(rounded=float), "whole epochs are asked for: round down, to an int."),
    ],
    cases=[(4, 18_681, 11e9, 65e12, 0.2), (1, 11_329, 11e9, 25.5e12, 0.4), (7, 500, 7e12, 9e12, 1)],
)


def _fitting(batch_size: int, fixed: float, each: float, memory: float) -> int:
    return -(-batch_size // math.floor((memory - fixed) / each))


_parts = Exercise(
    answer=_fitting,
    mistakes=[
        (
            lambda batch_size, fixed, each, memory: _fitting(batch_size, 0, each, memory),
            "the weights take memory too, however small the parts are.",
        ),
        (
            lambda batch_size, fixed, each, memory: max(
                1, batch_size // math.floor((memory - fixed) / each)
            ),
            "rounded down, the parts are too few and each is too large: round up.",
        ),
        (
            lambda batch_size, fixed, each, memory: math.floor((memory - fixed) / each),
            "that is how many images fit at a time; asked for is the number of parts.",
        ),
        (
            lambda batch_size, fixed, each, memory: math.ceil((fixed + batch_size * each) / memory),
            "that also cuts the weights into parts: every part needs all of them.",
        ),
        (
            lambda batch_size, fixed, each, memory: math.ceil(batch_size * each / (memory - fixed)),
            "images cannot be cut: count first how many whole ones fit, then the parts.",
        ),
    ],
    cases=[(64, 0.4, 0.1, 4.0), (64, 1.0, 0.076, 2.0), (10, 0.0, 1.0, 3.5), (8, 1.0, 0.1, 9.0)],
)

_random = torch.Generator().manual_seed(8)
_gradients = torch.randn(4, 5, generator=_random)
_counts = torch.tensor([3, 3, 3, 1])

_gradient = Exercise(
    answer=lambda gradients, counts: (counts[:, None] * gradients).sum(0) / counts.sum(),
    mistakes=[
        (
            lambda gradients, counts: gradients.mean(0),
            "one image of the small share would count as much as three of another: weigh each "
            "mean by its images.",
        ),
        (
            lambda gradients, counts: gradients.sum(0),
            "that is the sum of the means, as many times too long as there are processes.",
        ),
        (
            lambda gradients, counts: (counts[:, None] * gradients).sum(0),
            "that is the sum over all images: divide by how many there are.",
        ),
        (
            lambda gradients, counts: (counts[:, None] * gradients).mean(0),
            "you divided by the number of processes; after weighing by images, divide by the "
            "number of images.",
        ),
        (
            lambda gradients, counts: (gradients / counts[:, None]).sum(0) / (1 / counts).sum(),
            "that gives the smallest share the greatest weight: multiply by the counts.",
        ),
    ],
    cases=[(_gradients, _counts), (_gradients[:2] - 1, torch.tensor([1, 7]))],
)


def check_epochs_in(function: Callable[[float, int, float, float, float], int]) -> None:
    """epochs_in(hours, images, operations, speed, share) -> whole epochs, an int."""
    print(_epochs_in.judge(function))


def check_parts_that_fit(function: Callable[[int, float, float, float], int]) -> None:
    """parts_that_fit(batch_size, fixed, each, memory) -> the least number of parts, an int."""
    print(_parts.judge(function))


def check_gradient_of_the_batch(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """gradient_of_the_batch(gradients, counts) -> the mean over all images, shape (P,)."""
    print(_gradient.judge(function))
