"""Exercises of page 01: the forward process."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say
from diffusion_lib.schedules import NoiseSchedule

_random = torch.Generator().manual_seed(0)
_x, _noise = torch.randn(2, 4, 3, 8, 8, generator=_random, dtype=torch.float64)


def _jump(betas: Tensor, t: int) -> Tensor:
    return torch.cumprod(1 - betas, 0)[t]


_betas = NoiseSchedule("linear", 50).betas

_add_noise = Exercise(
    answer=lambda x, t, e, betas: _jump(betas, t) ** 0.5 * x + (1 - _jump(betas, t)) ** 0.5 * e,
    mistakes=[
        (
            lambda x, t, e, betas: (1 - betas[t]) ** 0.5 * x + betas[t] ** 0.5 * e,
            "that is one step with beta_t; the jump takes all steps up to t, so multiply their "
            "alphas (torch.cumprod).",
        ),
        (
            lambda x, t, e, betas: _jump(betas, t) * x + (1 - _jump(betas, t)) * e,
            "alpha_bar and 1 - alpha_bar are variances; the coefficients are their roots.",
        ),
        (
            lambda x, t, e, betas: _jump(betas, t) ** 0.5 * x + (1 - _jump(betas, t)) * e,
            "the signal is right; the noise is multiplied by its variance 1 - alpha_bar, and "
            "needs the root of it.",
        ),
        (
            lambda x, t, e, betas: _jump(betas, t) * x + (1 - _jump(betas, t)) ** 0.5 * e,
            "the noise is right; the signal coefficient is the root of alpha_bar.",
        ),
        (
            lambda x, t, e, betas: (1 - _jump(betas, t)) ** 0.5 * x + _jump(betas, t) ** 0.5 * e,
            "the two coefficients are exchanged: at a small t nearly all of x_0 is left.",
        ),
        (
            lambda x, t, e, betas: (
                (_jump(betas, t) / (1 - betas[t])) ** 0.5 * x
                + (1 - _jump(betas, t) / (1 - betas[t])) ** 0.5 * e
            ),
            "one step is missing: in code timestep t has t + 1 steps behind it, those of "
            "betas[0] to betas[t].",
        ),
        (
            lambda x, t, e, betas: (
                torch.prod(betas[: t + 1]) ** 0.5 * x + (1 - torch.prod(betas[: t + 1])) ** 0.5 * e
            ),
            "you multiplied the betas; a step keeps the variance alpha = 1 - beta, so the alphas "
            "multiply.",
        ),
        (
            lambda x, t, e, betas: (
                (1 - betas[: t + 1].sum()) ** 0.5 * x + betas[: t + 1].sum() ** 0.5 * e
            ),
            "you added the betas up, which is close only while they are few and small; multiply "
            "the alphas.",
        ),
    ],
    cases=[(_x, t, _noise, _betas) for t in (0, 10, 49)],
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
            "1 - alpha_bar is the noise's variance; its coefficient is the root of that.",
        ),
        (
            lambda x_t, noise, alpha_bar: x_t - (1 - alpha_bar) ** 0.5 * noise,
            "the noise is gone, but the image is still too faint: divide by sqrt(alpha_bar).",
        ),
        (
            lambda x_t, noise, alpha_bar: (x_t - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar,
            "you divided by alpha_bar; the image was scaled by its root.",
        ),
        (
            lambda x_t, noise, alpha_bar: (x_t - (1 - alpha_bar) * noise) / alpha_bar,
            "you used variances as coefficients: both the noise's and the image's need a root.",
        ),
        (
            lambda x_t, noise, alpha_bar: x_t / alpha_bar**0.5 - (1 - alpha_bar) ** 0.5 * noise,
            "only x_t is divided by sqrt(alpha_bar); the noise has to be as well: mind the "
            "brackets.",
        ),
        (
            lambda x_t, noise, alpha_bar: (x_t + (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5,
            "you added the noise once more; subtract it.",
        ),
    ],
    cases=[(_x, _noise, alpha_bar) for alpha_bar in (0.9, 0.5, 0.1)],
)

_jump_on = Exercise(
    answer=lambda x, noise, s, t: (t / s) ** 0.5 * x + (1 - t / s) ** 0.5 * noise,
    mistakes=[
        (
            lambda x, noise, s, t: t**0.5 * x + (1 - t) ** 0.5 * noise,
            "you jump as if from the clean image; x_s was scaled by sqrt(alpha_bar_s) already, so "
            "only the ratio alpha_bar_t / alpha_bar_s is still to come.",
        ),
        (
            lambda x, noise, s, t: (t / s) ** 0.5 * x + (1 - t) ** 0.5 * noise,
            "the signal is right, but the noise is that of a jump from the clean image: x_s "
            "already contains noise.",
        ),
        (
            lambda x, noise, s, t: (t / s) ** 0.5 * x + (s - t) ** 0.5 * noise,
            "the noise in x_s is scaled down too, so the variance to add is not "
            "alpha_bar_s - alpha_bar_t.",
        ),
        (
            lambda x, noise, s, t: (s / t) ** 0.5 * x + abs(1 - s / t) ** 0.5 * noise,
            "the ratio is upside down: alpha_bar falls, and the signal must get weaker.",
        ),
        (
            lambda x, noise, s, t: (t / s) * x + (1 - t / s) * noise,
            "the ratio is a share of variance; the coefficients of signal and noise are roots.",
        ),
        (
            lambda x, noise, s, t: (t / s) ** 0.5 * x + (1 - t / s) * noise,
            "the signal is right; the noise coefficient needs a root.",
        ),
    ],
    cases=[(_x, _noise, 0.9, 0.5), (_x, _noise, 0.6, 0.1)],
)


def _crossing_at(alpha_bars: Tensor, variance: float) -> int:
    return int((alpha_bars * variance < 1 - alpha_bars).nonzero()[0])


_crossing = Exercise(
    answer=_crossing_at,
    mistakes=[
        (
            lambda bars, variance: _crossing_at(bars, 1.0),
            "that is where the two coefficients are equal. The signal's variance is alpha_bar "
            "times that of the data.",
        ),
        (
            lambda bars, variance: _crossing_at(bars, variance**0.5),
            "you multiplied alpha_bar by the data's standard deviation; its variance is needed.",
        ),
        (
            lambda bars, variance: _crossing_at(bars, variance) - 1,
            "that is the last timestep at which the signal's variance is larger; the first at "
            "which the noise's is larger comes after it.",
        ),
        (
            lambda bars, variance: _crossing_at(bars, variance) + 1,
            "you count from 1, as the papers do; in code the first timestep is 0.",
        ),
        (
            lambda bars, variance: int((bars * variance < 0.5).nonzero()[0]),
            "you compared the signal's variance with 1/2; compare it with the noise's, which is "
            "1 - alpha_bar.",
        ),
        (
            lambda bars, variance: int((bars.sqrt() * variance < (1 - bars).sqrt()).nonzero()[0]),
            "you mixed amplitudes and variances: sqrt(alpha_bar) scales a standard deviation, "
            "alpha_bar scales a variance.",
        ),
        (
            lambda bars, variance: len(bars) // 2,
            "that is the timestep in the middle. Find where alpha_bar * variance falls below "
            "1 - alpha_bar.",
        ),
    ],
    cases=[
        (NoiseSchedule(name, 1000).alpha_bars, variance)
        for name in ("linear", "cosine", "sigmoid")
        for variance in (0.28, 0.6)
    ],
)


def check_add_noise(function: Callable[[Tensor, int, Tensor, Tensor], Tensor]) -> None:
    """add_noise(x0, t, noise, betas) -> x_t, shape of x0; betas are (T,)."""
    say(_add_noise.judge(function), function)


def check_recover_x0(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """recover_x0(x_t, noise, alpha_bar) -> x_0, shape of x_t."""
    say(_recover_x0.judge(function), function)


def check_jump_on(function: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """jump_on(x_s, noise, alpha_bar_s, alpha_bar_t) -> x_t, shape of x_s, for s < t."""
    say(_jump_on.judge(function), function)


def check_crossing(function: Callable[[Tensor, float], int]) -> None:
    """crossing(alpha_bars, variance) -> the first t at which the noise has more variance."""
    say(_crossing.judge(function), function)
