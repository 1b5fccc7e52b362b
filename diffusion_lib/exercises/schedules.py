"""Exercises of pages 02 and 02b: the noise schedules, and their ends."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say
from diffusion_lib.schedules import NoiseSchedule, linear


def _previous(alpha_bars: Tensor) -> Tensor:
    """alpha_bar of the step before each, which is 1 before the first."""
    return torch.cat([torch.ones(1, dtype=alpha_bars.dtype), alpha_bars[:-1]])


def _squared_cosine(timesteps: int) -> Tensor:
    """alpha_bars that fall to 0 at the last step, where only the clip keeps beta below 1."""
    u = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    return torch.cos(u * math.pi / 2) ** 2


_BETA_MISTAKES = [
    (
        lambda bars: 1 - bars,
        "that is 1 - alpha_bar, all the noise so far; beta is what one step adds, so compare "
        "alpha_bar with that of the step before.",
    ),
    (
        lambda bars: bars / _previous(bars),
        "these are the alphas, the share that a step keeps; beta is what it does not keep.",
    ),
    (
        lambda bars: 1 - torch.cat([torch.ones(1), bars[1:] / bars[:-1]]),
        "the first beta is 0, as if the first step added no noise; before it nothing was lost, so "
        "compare alpha_bars[0] with 1.",
    ),
    (
        lambda bars: 1 - _previous(bars) / bars,
        "the ratio is upside down: alpha_bar falls, so a step's alpha is below 1.",
    ),
    (
        lambda bars: 1 - (bars / _previous(bars)).sqrt(),
        "you took a root; alpha_bar and beta are both variances, so there is no root between them.",
    ),
    (
        lambda bars: _previous(bars) - bars,
        "that is the difference, the part of the original image that a step destroys; alphas "
        "multiply, so take the ratio.",
    ),
]

_betas = Exercise(
    answer=lambda bars: (1 - bars / _previous(bars)).clamp(max=0.999),
    mistakes=[
        (
            lambda bars: 1 - bars / _previous(bars),
            "right but for the clip: the last beta is 1 here, and a step that keeps nothing can "
            "not be undone. No beta may be above 0.999.",
        ),
        *_BETA_MISTAKES,
        *(
            (lambda bars, mistake=mistake: mistake(bars).clamp(max=0.999), words)
            for mistake, words in _BETA_MISTAKES
        ),
    ],
    cases=[(_squared_cosine(50),), (NoiseSchedule("linear", 100).alpha_bars,)],
)

_shift = Exercise(
    answer=lambda bars, factor: torch.sigmoid(bars.logit() - 2 * math.log(factor)),
    mistakes=[
        (
            lambda bars, factor: torch.sigmoid(bars.logit() + 2 * math.log(factor)),
            "you shifted the wrong way: a larger image needs more noise, so its log-SNR goes down.",
        ),
        (
            lambda bars, factor: torch.sigmoid(bars.logit() - math.log(factor)),
            "half the way: an image that is `factor` times as wide is as many times as high, and "
            "averages factor ** 2 pixels.",
        ),
        (
            lambda bars, factor: torch.sigmoid(bars.logit() - 4 * math.log(factor)),
            "twice too far: factor ** 2 pixels make 2 log(factor), and you squared twice.",
        ),
        (
            lambda bars, factor: torch.sigmoid(bars.logit() - 2 * math.log10(factor)),
            "log-SNR is a natural logarithm, and you took one to base 10.",
        ),
        (
            lambda bars, factor: torch.sigmoid(bars.logit() - 2 * math.log2(factor)),
            "log-SNR is a natural logarithm, and you took one to base 2.",
        ),
        (
            lambda bars, factor: bars.logit() - 2 * math.log(factor),
            "this is the shifted log-SNR; one step is missing, back to alpha_bar: the sigmoid.",
        ),
        (
            lambda bars, factor: bars / factor**2,
            "you divided alpha_bar; it is the ratio alpha_bar / (1 - alpha_bar) that shrinks by "
            "factor ** 2, and at the first step almost nothing changes.",
        ),
        (
            lambda bars, factor: torch.exp(bars.logit() - 2 * math.log(factor)),
            "this is the shifted SNR itself; alpha_bar = SNR / (1 + SNR).",
        ),
        (
            lambda bars, factor: torch.sigmoid(2 * math.log(factor) - bars.logit()),
            "this is 1 - alpha_bar, the noise's share: the sign of the log-SNR is turned round.",
        ),
    ],
    cases=[
        (NoiseSchedule("cosine", 20).alpha_bars, 4),
        (NoiseSchedule("linear", 100).alpha_bars, 2),
    ],
)


_x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

_to_variance_preserving = Exercise(
    answer=lambda x, sigma: x / (1 + sigma**2) ** 0.5,
    mistakes=[
        (
            lambda x, sigma: x / (1 + sigma**2),
            "you divided by the variance of the two coefficients together; divide by its root.",
        ),
        (
            lambda x, sigma: x / (1 + sigma),
            "standard deviations don't add, variances do: 1 + sigma^2, and the root of that.",
        ),
        (
            lambda x, sigma: x / sigma,
            "this makes the noise coefficient 1. The squares of both coefficients must sum to 1.",
        ),
        (
            lambda x, sigma: x * (1 + sigma**2) ** 0.5,
            "you multiplied; the noise has to become weaker, so divide.",
        ),
        (
            lambda x, sigma: x * (1 - sigma**2) ** 0.5,
            "that is the signal coefficient of a process whose noise coefficient is sigma; here "
            "sigma is the ratio of the two.",
        ),
    ],
    cases=[(_x, 0.3), (_x, 0.8)],
)


def _stretched(values: Tensor) -> Tensor:
    """Lowered by the last value, then stretched so that the first one is as before."""
    return (values - values[-1]) * values[0] / (values[0] - values[-1])


_zero_terminal_snr = Exercise(
    answer=lambda bars: _stretched(bars.sqrt()) ** 2,
    mistakes=[
        (
            _stretched,
            "you rescaled alpha_bar; the algorithm moves its root, the signal coefficient.",
        ),
        (
            lambda bars: _stretched(bars.sqrt()),
            "that is sqrt(alpha_bar), rescaled well; square it.",
        ),
        (
            lambda bars: (bars.sqrt() - bars[-1].sqrt()) ** 2,
            "the end is 0, but the first one is lower too: stretch, so that the first one is as "
            "before.",
        ),
        (
            lambda bars: bars - bars[-1],
            "you subtracted from alpha_bar; subtract from its root, and then stretch.",
        ),
        (
            lambda bars: torch.cat([bars[:-1], torch.zeros(1)]),
            "only the last step changed, and now it has to destroy alone what was left; share it "
            "among all steps.",
        ),
        (
            lambda bars: (
                ((bars.sqrt() - bars[-1].sqrt()) / (bars[0].sqrt() - bars[-1].sqrt())) ** 2
            ),
            "you stretched the first one to 1, as if it added no noise; it must be what it was.",
        ),
        (
            lambda bars: bars,
            "nothing has changed: the last one must be 0.",
        ),
    ],
    cases=[
        (NoiseSchedule("linear", 100).alpha_bars,),
        (NoiseSchedule("quadratic", 50, 0.00085, 0.012).alpha_bars,),
    ],
)


def _fewest(end: float, left: float) -> int:
    timesteps = 2
    while (1 - linear(timesteps, beta_end=end)).prod().sqrt() >= left:
        timesteps += 1
    return timesteps


def _cut_off(end: float, left: float) -> int:
    return int((NoiseSchedule("linear", 1000, beta_end=end).alpha_bars.sqrt() >= left).sum()) + 1


_fewest_steps = Exercise(
    answer=_fewest,
    mistakes=[
        (
            lambda end, left: _fewest(end, left**0.5),
            "you compared alpha_bar; the signal coefficient, which must be below `left`, is its "
            "root.",
        ),
        (
            lambda end, left: _fewest(end, left**2),
            "you took the root of alpha_bar twice, or compared it with the square of `left`.",
        ),
        (
            lambda end, left: _fewest(end, left) - 1,
            "one too few: that is the last T that still leaves too much.",
        ),
        (
            lambda end, left: _fewest(end, left) + 1,
            "one too many: a step fewer leaves less than `left` already.",
        ),
        (
            _cut_off,
            "you cut a schedule of 1000 steps off; one of fewer steps climbs to `end` as well, so "
            "make a new one for every T.",
        ),
        (
            lambda end, left: _cut_off(end, left) - 1,
            "that is a timestep of a schedule of 1000 steps; make a new schedule for every T.",
        ),
    ],
    cases=[(0.02, 0.05), (0.2, 0.01), (0.1, 0.1)],
)


def check_betas(function: Callable[[Tensor], Tensor]) -> None:
    """betas_of(alpha_bars) -> betas, both (T,), none above 0.999."""
    say(_betas.judge(function), function)


def check_shift(function: Callable[[Tensor, float], Tensor]) -> None:
    """shift(alpha_bars, factor) -> alpha_bars for images `factor` times as wide and high."""
    say(_shift.judge(function), function)


def check_to_variance_preserving(function: Callable[[Tensor, float], Tensor]) -> None:
    """to_variance_preserving(x, sigma) -> x_t, of x = x_0 + sigma epsilon; shape of x."""
    say(_to_variance_preserving.judge(function), function)


def check_zero_terminal_snr(function: Callable[[Tensor], Tensor]) -> None:
    """rescale(alpha_bars) -> alpha_bars whose last one is 0, both (T,)."""
    say(_zero_terminal_snr.judge(function), function)


def check_fewest_steps(function: Callable[[float, float], int]) -> None:
    """fewest_steps(end, left) -> the smallest T whose linear schedule leaves less than `left`."""
    say(_fewest_steps.judge(function), function)
