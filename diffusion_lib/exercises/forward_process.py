"""Exercises of page 01: the forward process."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise
from diffusion_lib.schedules import NoiseSchedule

_random = torch.Generator().manual_seed(0)
_x, _noise = torch.randn(2, 4, 3, 8, 8, generator=_random, dtype=torch.float64)

_alpha_bars = Exercise(
    answer=lambda betas: torch.cumprod(1 - betas, 0),
    mistakes=[
        (
            lambda betas: torch.cumprod(betas, 0),
            "you multiplied the betas; what is left after a step is alpha = 1 - beta.",
        ),
        (
            lambda betas: torch.cumsum(1 - betas, 0),
            "you added the alphas up; each step keeps a share of what the one before it kept, so "
            "they multiply.",
        ),
        (
            lambda betas: 1 - betas,
            "these are the alphas: one step each. alpha_bar is all steps up to t together.",
        ),
        (
            lambda betas: 1 - torch.cumsum(betas, 0),
            "one minus the sum of the betas is close while they are few and small, but goes below "
            "0; multiply the alphas.",
        ),
        (
            lambda betas: torch.cumprod(1 - betas, 0) / (1 - betas),
            "you start with 1, as if timestep 0 added no noise; in code alpha_bars[0] has the "
            "first step behind it.",
        ),
        (
            lambda betas: torch.cumprod(1 - betas, 0).sqrt(),
            "that is sqrt(alpha_bar), the factor of the picture; alpha_bar itself is asked for.",
        ),
        (
            lambda betas: 1 - torch.cumprod(1 - betas, 0),
            "that is 1 - alpha_bar, the variance of the noise; alpha_bar is what is left of the "
            "picture.",
        ),
    ],
    cases=[(NoiseSchedule("linear", 100).betas,), (NoiseSchedule("cosine", 37).betas,)],
)

_recover_x0 = Exercise(
    answer=lambda x_t, noise, alpha_bar: (x_t - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5,
    mistakes=[
        (
            lambda x_t, noise, alpha_bar: (x_t - noise) / alpha_bar**0.5,
            "you subtracted the noise as it is; in x_t it is scaled by sqrt(1 - alpha_bar).",
        ),
        (
            lambda x_t, noise, alpha_bar: (x_t - (1 - alpha_bar) * noise) / alpha_bar**0.5,
            "1 - alpha_bar is the noise's variance; its factor is the root of that.",
        ),
        (
            lambda x_t, noise, alpha_bar: x_t - (1 - alpha_bar) ** 0.5 * noise,
            "the noise is gone, but the picture is still faded: divide by sqrt(alpha_bar).",
        ),
        (
            lambda x_t, noise, alpha_bar: (x_t - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar,
            "you divided by alpha_bar; the picture was scaled by its root.",
        ),
        (
            lambda x_t, noise, alpha_bar: (x_t - (1 - alpha_bar) * noise) / alpha_bar,
            "you used variances for factors: both the noise's and the picture's need a root.",
        ),
        (
            lambda x_t, noise, alpha_bar: x_t / alpha_bar**0.5 - (1 - alpha_bar) ** 0.5 * noise,
            "only x_t is divided by sqrt(alpha_bar); the noise has to be as well: mind the "
            "brackets.",
        ),
        (
            lambda x_t, noise, alpha_bar: (x_t + (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5,
            "you added the noise once more; take it away.",
        ),
    ],
    cases=[(_x, _noise, alpha_bar) for alpha_bar in (0.9, 0.5, 0.1)],
)

_jump_on = Exercise(
    answer=lambda x, noise, s, t: (t / s) ** 0.5 * x + (1 - t / s) ** 0.5 * noise,
    mistakes=[
        (
            lambda x, noise, s, t: t**0.5 * x + (1 - t) ** 0.5 * noise,
            "you jump as if from the clean picture; x_s has faded by sqrt(alpha_bar_s) already, "
            "so only the ratio alpha_bar_t / alpha_bar_s is still to come.",
        ),
        (
            lambda x, noise, s, t: (t / s) ** 0.5 * x + (1 - t) ** 0.5 * noise,
            "the picture is right, but the noise is that of a jump from the clean picture: x_s "
            "brings some noise of its own.",
        ),
        (
            lambda x, noise, s, t: (t / s) ** 0.5 * x + (s - t) ** 0.5 * noise,
            "the noise in x_s fades on the way too, so the variances do not simply differ by "
            "alpha_bar_s - alpha_bar_t.",
        ),
        (
            lambda x, noise, s, t: (s / t) ** 0.5 * x + abs(1 - s / t) ** 0.5 * noise,
            "the ratio is upside down: alpha_bar falls, and the picture must fade.",
        ),
        (
            lambda x, noise, s, t: (t / s) * x + (1 - t / s) * noise,
            "the ratio is a share of variance; the factors of picture and noise are roots.",
        ),
        (
            lambda x, noise, s, t: (t / s) ** 0.5 * x + (1 - t / s) * noise,
            "the picture is right; the factor of the noise wants a root.",
        ),
    ],
    cases=[(_x, _noise, 0.9, 0.5), (_x, _noise, 0.6, 0.1)],
)


def _half_gone_at(alpha_bars: Tensor) -> int:
    return int((alpha_bars < 0.5).nonzero()[0])


_half_gone = Exercise(
    answer=_half_gone_at,
    mistakes=[
        (
            lambda alpha_bars: _half_gone_at(alpha_bars) - 1,
            "that is the last timestep at which the picture is still stronger; the first at which "
            "the noise is stronger comes after it.",
        ),
        (
            lambda alpha_bars: _half_gone_at(alpha_bars) + 1,
            "you count from 1, as the papers do; in code the first timestep is 0.",
        ),
        (
            lambda alpha_bars: _half_gone_at(alpha_bars.sqrt()),
            "you compared sqrt(alpha_bar) with 1/2; strength means variance here, so compare "
            "alpha_bar with 1 - alpha_bar.",
        ),
        (
            lambda alpha_bars: len(alpha_bars) // 2,
            "that is half of T: the timestep in the middle. Find where alpha_bar falls below a "
            "half.",
        ),
    ],
    cases=[(NoiseSchedule(name, 1000).alpha_bars,) for name in ("linear", "cosine", "sigmoid")],
)


def check_alpha_bars(function: Callable[[Tensor], Tensor]) -> None:
    """alpha_bars_of(betas) -> alpha_bars, both (T,)."""
    print(_alpha_bars.judge(function))


def check_recover_x0(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """recover_x0(x_t, noise, alpha_bar) -> x_0, shape of x_t."""
    print(_recover_x0.judge(function))


def check_jump_on(function: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """jump_on(x_s, noise, alpha_bar_s, alpha_bar_t) -> x_t, shape of x_s, for s < t."""
    print(_jump_on.judge(function))


def check_half_gone(function: Callable[[Tensor], int]) -> None:
    """half_gone(alpha_bars) -> the first t at which the noise is stronger than the picture."""
    print(_half_gone.judge(function))
