"""Exercises of page 07: guidance by a classifier, labels that are dropped, guidance without one."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import CORRECT, Exercise, say

_random = torch.Generator().manual_seed(7)
_x0, _gradient = torch.randn(2, 3, 1, 4, 4, generator=_random, dtype=torch.float64)

_move_by_gradient = Exercise(
    answer=lambda x0, gradient, signal, sigma, scale: x0 + scale * sigma**2 / signal * gradient,
    mistakes=[
        (
            lambda x0, gradient, signal, sigma, scale: x0 + scale * gradient,
            "you added the gradient itself, which belongs to the score. Put x0 = (x_t + sigma^2 "
            "score) / signal into it: by what is the score multiplied there?",
        ),
        (
            lambda x0, gradient, signal, sigma, scale: x0 - scale * sigma**2 / signal * gradient,
            "this leads away from the label: the gradient points to where log p(y | x) grows.",
        ),
        (
            lambda x0, gradient, signal, sigma, scale: x0 + scale * sigma**2 * gradient,
            "what you added belongs to signal x0: divide it by signal.",
        ),
        (
            lambda x0, gradient, signal, sigma, scale: x0 + scale * sigma / signal * gradient,
            "sigma is squared in the formula of the score.",
        ),
        (
            lambda x0, gradient, signal, sigma, scale: x0 - scale * sigma * gradient,
            "that is how epsilon changes; here it is the clean image.",
        ),
        (
            lambda x0, gradient, signal, sigma, scale: x0 + sigma**2 / signal * gradient,
            "the scale is missing.",
        ),
    ],
    cases=[(_x0, _gradient, 0.8, 0.6, 1.0), (_x0, _gradient, 0.28, 0.96, 3.0)],
)

_labels = torch.tensor([3, 0, 7, 1, 9, 0, 5, 2])
_draws = torch.tensor([0.5, 0.02, 0.3, 0.05, 0.99, 0.7, 0.2, 0.61])


def _drop_by_hand(labels: Tensor, draws: Tensor, rate: float) -> Tensor:
    return torch.where(draws < rate, -1, labels)


_drop = Exercise(
    answer=_drop_by_hand,
    mistakes=[
        (
            lambda labels, draws, rate: torch.where(draws < rate, labels, -1),
            "you kept the few and dropped the many: with a rate of 0.1, one in ten is dropped.",
        ),
        (
            lambda labels, draws, rate: labels * (draws >= rate),
            "0 is a class too, the digit 0: what is unknown is -1.",
        ),
        (
            lambda labels, draws, rate: labels if draws[0] >= rate else torch.full_like(labels, -1),
            "you decided once for the whole batch: decide for each image by its own number.",
        ),
        (lambda labels, draws, rate: labels, "no label is dropped."),
    ],
    cases=[(_labels, _draws, 0.1), (_labels, _draws, 0.55), (_labels, _draws, 0.0)],
    expects="a tensor of labels",
)

_unknown, _known = torch.randn(2, 3, 1, 4, 4, generator=_random, dtype=torch.float64)

_combine = Exercise(
    answer=lambda unknown, known, scale: unknown + scale * (known - unknown),
    mistakes=[
        (
            lambda unknown, known, scale: known + scale * (known - unknown),
            "you started from the prediction with the label: at scale 1 that is already beyond it. "
            "(It is the paper's formula, whose w is our scale - 1.)",
        ),
        (
            lambda unknown, known, scale: unknown + scale * (unknown - known),
            "this leads away from the label: the difference is the other way round.",
        ),
        (
            lambda unknown, known, scale: known + scale * (unknown - known),
            "the two have changed places: scale 0 must be the prediction without the label.",
        ),
        (
            lambda unknown, known, scale: unknown + scale * known,
            "at scale 1 this is the sum of both; it has to be the prediction with the label.",
        ),
        (
            lambda unknown, known, scale: scale * known,
            "the prediction without the label is missing.",
        ),
    ],
    cases=[(_unknown, _known, scale) for scale in (0.0, 1.0, 3.0)],
)


def check_move_by_gradient(function: Callable[[Tensor, Tensor, float, float, float], Tensor]):
    """move_by_gradient(x0, gradient, signal, sigma, scale) -> x0, shape of x0."""
    say(_move_by_gradient.judge(function), function)


def check_drop(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """drop(labels, draws, rate) -> labels, -1 where dropped, (N,)."""
    given = _labels.clone()
    verdict = _drop.judge(lambda labels, draws, rate: function(labels.clone(), draws, rate))
    if verdict == CORRECT:
        function(given, _draws, 0.55)
        if not torch.equal(given, _labels):
            verdict = (
                "Not yet: the labels are right, but you changed them in place: what is dropped in "
                "one batch stays dropped in the data set. Make a new tensor, by torch.where."
            )
    say(verdict, function)


def check_combine(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """combine(unknown, known, scale) -> the guided prediction, shape of both."""
    say(_combine.judge(function), function)
