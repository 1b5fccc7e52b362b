"""Exercises of pages 09 and 10: score, SDE and ODE; flow matching."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say

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


_noise_from_velocity = Exercise(
    answer=lambda x, velocity, t: x + (1 - t) * velocity,
    mistakes=[
        (
            lambda x, velocity, t: x - t * velocity,
            "that is the clean image, at t = 0; the noise is at the other end of the line, t = 1.",
        ),
        (
            lambda x, velocity, t: x + t * velocity,
            "from t to the noise, at t = 1, is a way of 1 - t, not of t.",
        ),
        (
            lambda x, velocity, t: x + velocity,
            "that is the way from the image to the noise; from x_t only 1 - t of it is left.",
        ),
        (
            lambda x, velocity, t: x - (1 - t) * velocity,
            "the velocity is epsilon - x0, toward the noise: add it.",
        ),
        (
            lambda x, velocity, t: x / t,
            "that takes the image in x_t for 0; use the velocity.",
        ),
        (
            lambda x, velocity, t: (x - (1 - t) * velocity) / t,
            "you took the velocity for the image; the image is epsilon minus the velocity.",
        ),
        (
            lambda x, velocity, t: t * x + (1 - t) * velocity,
            "x_t has to stay whole: walk from it, the time 1 - t, at this velocity.",
        ),
    ],
    cases=[(_x, _score, 0.3), (_x, _score, 0.9)],
)


def _gaussian_cdf(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / 2**0.5)) / 2


_logit_normal = Exercise(
    answer=lambda z, mean, std: torch.sigmoid(mean + std * z),
    mistakes=[
        (
            lambda z, mean, std: torch.sigmoid(z),
            "that has mean 0 and standard deviation 1 of the logit, whatever is asked for.",
        ),
        (
            lambda z, mean, std: mean + std * z,
            "that is the logit; its inverse, the sigmoid, brings it to 0 ... 1.",
        ),
        (
            lambda z, mean, std: mean + std * torch.sigmoid(z),
            "the mean and the standard deviation are those of the logit: use them before the "
            "sigmoid.",
        ),
        (
            lambda z, mean, std: torch.sigmoid((z - mean) / std),
            "you standardized z, which is standard already; go the other way, mean + std z.",
        ),
        (
            lambda z, mean, std: torch.exp(mean + std * z),
            "that is log-normal, and exceeds 1; the inverse of the logit is the sigmoid.",
        ),
        (
            lambda z, mean, std: _gaussian_cdf(mean + std * z),
            "that is the distribution function of the Gaussian, which makes z uniform, not "
            "logit-normal; take the sigmoid.",
        ),
        (
            lambda z, mean, std: torch.sigmoid(mean + std**2 * z),
            "std is a standard deviation, so it multiplies z without a square.",
        ),
    ],
    cases=[(_x[:, 0], 0.0, 1.5), (_x[:, 0], -0.6, 0.8), (_x[:, 1], 0.4, 1.0)],
)


def _deviations(states: Tensor) -> Tensor:
    """(K + 1, N, 2) -> (K, N, 2)"""
    return states.diff(dim=0) * (len(states) - 1) - (states[-1] - states[0])


_states = torch.randn(6, 4, 2, generator=_random, dtype=torch.float64).cumsum(0)

_straightness = Exercise(
    answer=lambda states: _deviations(states).square().sum(-1).mean(),
    mistakes=[
        (
            lambda states: (states.diff(dim=0) - (states[-1] - states[0])).square().sum(-1).mean(),
            "a step takes the time 1/K, so its velocity is K times its length.",
        ),
        (
            lambda states: (
                (states.diff(dim=0) * len(states) - (states[-1] - states[0]))
                .square()
                .sum(-1)
                .mean()
            ),
            "there are K + 1 states but K steps: multiply by len(states) - 1.",
        ),
        (
            lambda states: _deviations(states).square().mean(),
            "you averaged over the two coordinates; a squared length is their sum.",
        ),
        (
            lambda states: _deviations(states).square().sum(-1).sum(0).mean(),
            "you added up the steps; the integral over the time is their mean.",
        ),
        (
            lambda states: _deviations(states).norm(dim=-1).mean(),
            "that is the length of the deviation; S has its square.",
        ),
        (
            lambda states: (states.diff(dim=0) * (len(states) - 1)).square().sum(-1).mean(),
            "that is the mean squared velocity; subtract the velocity of the whole way.",
        ),
        (
            lambda states: (
                states.diff(dim=0).norm(dim=-1).sum(0) / (states[-1] - states[0]).norm(dim=-1)
            ).mean(),
            "that is the length of the trajectory beside the straight way, another measure; S "
            "compares velocities.",
        ),
        (
            lambda states: _deviations(states).sum(-1).square().mean(),
            "square each coordinate first, and add then.",
        ),
    ],
    cases=[(_states,), (_states[:4, :2],)],
    expects="a tensor of shape (): end with .mean()",
)


def check_tweedie(function: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """tweedie(x_t, score, signal, sigma) -> the predicted x0."""
    say(_tweedie.judge(function), function)


def check_reverse_step(function: Callable[[Tensor, Tensor, float, Tensor], Tensor]) -> None:
    """reverse_step(x, score, beta, z) -> x one step earlier."""
    say(_reverse_step.judge(function), function)


def check_heun_step(function: Callable[[Tensor, float, float, Callable], Tensor]) -> None:
    """heun_step(y, sigma, sigma_next, slope) -> y at sigma_next."""
    say(_heun_step.judge(function), function)


def check_noise_from_velocity(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """noise_from_velocity(x_t, velocity, t) -> the predicted noise."""
    say(_noise_from_velocity.judge(function), function)


def check_logit_normal(function: Callable[[Tensor, float, float], Tensor]) -> None:
    """logit_normal(z, mean, std) -> t in (0, 1)."""
    say(_logit_normal.judge(function), function)


def check_straightness(function: Callable[[Tensor], Tensor]) -> None:
    """straightness(states) -> S, shape ()."""
    say(_straightness.judge(function), function)
