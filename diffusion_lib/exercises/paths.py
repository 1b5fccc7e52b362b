"""Exercises of pages 09 and 10: score, SDE and ODE; flow matching."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise

_random = torch.Generator().manual_seed(9)
_x, _score, _z = torch.randn(3, 6, 2, generator=_random, dtype=torch.float64)

_tweedie = Exercise(
    answer=lambda x, score, signal, sigma: (x + sigma**2 * score) / signal,
    mistakes=[
        (
            lambda x, score, signal, sigma: (x + sigma * score) / signal,
            "epsilon is -sigma times the score, and x_t holds sigma times epsilon: so sigma comes "
            "in twice.",
        ),
        (
            lambda x, score, signal, sigma: (x - sigma**2 * score) / signal,
            "you went downhill: the score points to the data, so add it.",
        ),
        (
            lambda x, score, signal, sigma: (x - sigma * score) / signal,
            "you took the score for epsilon; epsilon is -sigma times the score.",
        ),
        (
            lambda x, score, signal, sigma: x + sigma**2 * score,
            "this is signal times x0; divide by signal.",
        ),
        (
            lambda x, score, signal, sigma: x / signal + sigma**2 * score,
            "you divided x_t by signal, but not the score's part.",
        ),
        (
            lambda x, score, signal, sigma: (x + score) / signal,
            "an arrow of the score is long where there is little noise, and must be multiplied by "
            "sigma^2.",
        ),
        (
            lambda x, score, signal, sigma: -sigma * score,
            "that is the predicted noise; subtract sigma times it from x_t, and divide by signal.",
        ),
    ],
    cases=[(_x, _score, 0.8, 0.6), (_x, _score, 0.3, 0.7)],
)

_reverse_step = Exercise(
    answer=lambda x, score, beta, z: x + beta * x / 2 + beta * score + beta**0.5 * z,
    mistakes=[
        (
            lambda x, score, beta, z: x + beta * x / 2 + beta * score / 2 + beta**0.5 * z,
            "half of the score belongs to the ODE, which has no noise; with noise it takes all of "
            "it.",
        ),
        (
            lambda x, score, beta, z: x - beta * x / 2 - beta * score + beta**0.5 * z,
            "this follows the equation forward in time; a step back changes the sign of the drift.",
        ),
        (
            lambda x, score, beta, z: x - beta * x / 2 + beta * score + beta**0.5 * z,
            "the forward process shrinks x, so a step back enlarges it: plus beta x / 2.",
        ),
        (
            lambda x, score, beta, z: x + beta * x / 2 - beta * score + beta**0.5 * z,
            "you went downhill: the score points to the data, and back in time it is added.",
        ),
        (
            lambda x, score, beta, z: x + beta * x / 2 + beta * score + beta * z,
            "beta is the variance of the noise: multiply z by its root.",
        ),
        (
            lambda x, score, beta, z: x + beta * x / 2 + beta * score,
            "the noise is missing: sqrt(beta) z.",
        ),
        (
            lambda x, score, beta, z: x + beta * x / 2 + beta * score - beta**0.5 * z,
            "the drift changes its sign, the noise does not: it has no direction, so add it.",
        ),
        (
            lambda x, score, beta, z: beta * x / 2 + beta * score + beta**0.5 * z,
            "that is the change of x; add it to x.",
        ),
    ],
    cases=[(_x, _score, 0.02, _z), (_x, _score, 0.3, _z)],
)


def _slope(y: Tensor, sigma: float) -> Tensor:
    """A slope that is easily computed, and tells both its arguments."""
    return (y - 0.5 * torch.tanh(y)) / (sigma + 0.3)


def _heun(y: Tensor, sigma: float, following: float, slope: Callable) -> Tensor:
    first = slope(y, sigma)
    return y + (following - sigma) * (first + slope(y + (following - sigma) * first, following)) / 2


def _trial(y: Tensor, sigma: float, following: float, slope: Callable) -> Tensor:
    return y + (following - sigma) * slope(y, sigma)


_heun_step = Exercise(
    answer=_heun,
    mistakes=[
        (_trial, "that is Euler's step; it is the trial. Ask for the slope at its end, too."),
        (
            lambda y, a, b, slope: y + (b - a) * (slope(y, a) + slope(y, b)) / 2,
            "the second slope is that of the old point at the new sigma; ask where the trial step "
            "has led.",
        ),
        (
            lambda y, a, b, slope: (
                y + (b - a) * (slope(y, a) + slope(_trial(y, a, b, slope), a)) / 2
            ),
            "at the end of the trial step the noise level is sigma_next.",
        ),
        (
            lambda y, a, b, slope: y + (b - a) * (slope(y, a) + slope(_trial(y, a, b, slope), b)),
            "you added the two slopes; take their mean.",
        ),
        (
            lambda y, a, b, slope: (
                _trial(y, a, b, slope)
                + (b - a) * (slope(y, a) + slope(_trial(y, a, b, slope), b)) / 2
            ),
            "that is two steps, one after the other; repeat the step from y.",
        ),
        (
            lambda y, a, b, slope: y + (b - a) * slope(_trial(y, a, b, slope), b),
            "you used the second slope alone; take the mean of both.",
        ),
        (
            lambda y, a, b, slope: _heun(y, a, 2 * a - b, slope),
            "you went toward more noise: the step is sigma_next - sigma, which is negative.",
        ),
        (
            lambda y, a, b, slope: y + (b - a) * slope(y + (b - a) / 2 * slope(y, a), (a + b) / 2),
            "that is the midpoint method, of second order as well; Heun's takes the mean of the "
            "slopes at both ends.",
        ),
    ],
    cases=[(_x, 2.0, 1.2, _slope), (_x, 0.5, 0.1, _slope)],
)


def check_tweedie(function: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """tweedie(x_t, score, signal, sigma) -> the predicted x0."""
    print(_tweedie.judge(function))


def check_reverse_step(function: Callable[[Tensor, Tensor, float, Tensor], Tensor]) -> None:
    """reverse_step(x, score, beta, z) -> x one step earlier."""
    print(_reverse_step.judge(function))


def check_heun_step(function: Callable[[Tensor, float, float, Callable], Tensor]) -> None:
    """heun_step(y, sigma, sigma_next, slope) -> y at sigma_next."""
    print(_heun_step.judge(function))
