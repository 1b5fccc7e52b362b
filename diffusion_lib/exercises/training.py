"""Exercises of page 04: training."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise
from diffusion_lib.schedules import NoiseSchedule

_random = torch.Generator().manual_seed(0)
_x, _noise = torch.randn(2, 4, 3, 8, 8, generator=_random, dtype=torch.float64)
_t = torch.tensor([3, 20, 50, 98])
_alpha_bars = NoiseSchedule("linear", 100, 1e-3, 0.2).alpha_bars


def _network(x_t: Tensor, t: Tensor) -> Tensor:
    """Stands in for a network: it looks at both of its arguments."""
    return 0.7 * x_t + t.view(-1, 1, 1, 1) / 100


def _noised(x0: Tensor, t: Tensor, noise: Tensor, alpha_bars: Tensor) -> Tensor:
    alpha_bar = alpha_bars[t].view(-1, 1, 1, 1)
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def _error(network: Callable, x0: Tensor, t: Tensor, noise: Tensor, alpha_bars: Tensor) -> Tensor:
    return network(_noised(x0, t, noise, alpha_bars), t) - noise


def _without_roots(x0: Tensor, t: Tensor, noise: Tensor, alpha_bars: Tensor) -> Tensor:
    alpha_bar = alpha_bars[t].view(-1, 1, 1, 1)
    return alpha_bar * x0 + (1 - alpha_bar) * noise


_simple_loss = Exercise(
    answer=lambda *args: _error(*args).square().mean(),
    mistakes=[
        (
            lambda network, x0, t, noise, bars: (
                (network(_without_roots(x0, t, noise, bars), t) - noise).square().mean()
            ),
            "alpha_bar and 1 - alpha_bar are variances; the factors of picture and noise are "
            "their roots.",
        ),
        (
            lambda network, x0, t, noise, bars: (network(x0, t) - noise).square().mean(),
            "you showed the network the clean picture, in which there is no noise to find: it "
            "has to see x_t.",
        ),
        (
            lambda network, x0, t, noise, bars: (network(x0 + noise, t) - noise).square().mean(),
            "you added the noise at full strength whatever t is; mix picture and noise as in "
            "eq. 4.",
        ),
        (
            lambda network, x0, t, noise, bars: (
                (network(_noised(x0, t, noise, bars), t) - x0).square().mean()
            ),
            "you compared the answer with the picture; in eq. 14 the network is asked for the "
            "noise.",
        ),
        (
            lambda network, x0, t, noise, bars: (
                (network(_noised(x0, t - 1, noise, bars), t) - noise).square().mean()
            ),
            "you took alpha_bars[t - 1]; our t counts from 0, so alpha_bars[t] has step t in it.",
        ),
        (
            lambda *args: _error(*args).square().sum(),
            "that is the sum over all pixels, which grows with the batch and the picture; return "
            "the mean.",
        ),
        (
            lambda *args: _error(*args).square().mean().sqrt(),
            "that is the root of the mean squared error; eq. 14 has no root.",
        ),
        (
            lambda *args: _error(*args).abs().mean(),
            "you took absolute values; those are least at the median. Squares are least at the "
            "mean, which is what we want.",
        ),
        (
            lambda *args: _error(*args).mean() ** 2,
            "you squared the mean of the errors, in which errors to both sides cancel; square "
            "first.",
        ),
    ],
    cases=[(_network, _x, _t, _noise, _alpha_bars), (_network, _noise, _t, _x, _alpha_bars)],
)

_noise_from_v = Exercise(
    answer=lambda x_t, v, a: (1 - a) ** 0.5 * x_t + a**0.5 * v,
    mistakes=[
        (
            lambda x_t, v, a: a**0.5 * x_t - (1 - a) ** 0.5 * v,
            "that is x_0. Multiply the two equations by the other factors, and add.",
        ),
        (
            lambda x_t, v, a: a**0.5 * x_t + (1 - a) ** 0.5 * v,
            "the two factors are swapped: where alpha_bar is 1, there is no noise in x_t, and v is "
            "all noise.",
        ),
        (
            lambda x_t, v, a: (1 - a) ** 0.5 * x_t - a**0.5 * v,
            "the sign of v is wrong: noise has a plus in v, the picture a minus.",
        ),
        (
            lambda x_t, v, a: (1 - a) * x_t + a * v,
            "the factors want roots: alpha_bar and 1 - alpha_bar are variances.",
        ),
        (
            lambda x_t, v, a: v,
            "you returned v itself; it is the noise only where alpha_bar is 1.",
        ),
        (
            lambda x_t, v, a: v / a**0.5,
            "you solved v = sqrt(alpha_bar) noise, without the picture in v; use x_t to get rid of "
            "the picture.",
        ),
    ],
    cases=[(_x, _noise, a) for a in (0.9, 0.5, 0.1)],
)


def _decay(step: int, ema: float) -> float:
    return min(ema, (1 + step) / (10 + step))


def _mix(average: Tensor, current: Tensor, decay: float) -> Tensor:
    return decay * average + (1 - decay) * current


_ema_update = Exercise(
    answer=lambda average, current, step, ema: _mix(average, current, _decay(step, ema)),
    mistakes=[
        (
            lambda average, current, step, ema: _mix(average, current, ema),
            "there is no warm-up: the decay is ema from the first step on, so the average would "
            "remember its random start for a long time.",
        ),
        (
            lambda average, current, step, ema: _mix(average, current, (1 + step) / (10 + step)),
            "the decay grows towards 1 without end: it must stop at ema.",
        ),
        (
            lambda average, current, step, ema: _mix(
                average, current, max(ema, (1 + step) / (10 + step))
            ),
            "you took the larger of the two decays; early on the smaller one must win.",
        ),
        (
            lambda average, current, step, ema: _mix(current, average, _decay(step, ema)),
            "the roles are swapped: the average keeps the large share, and the new weights bring "
            "the small one.",
        ),
        (
            lambda average, current, step, ema: (average + current) / 2,
            "you took the plain mean of both; the shares are decay and 1 - decay.",
        ),
        (
            lambda average, current, step, ema: average + (1 - _decay(step, ema)) * current,
            "the average grows and grows: multiply it by the decay before you add to it.",
        ),
    ],
    cases=[(_x[0], _noise[0], step, 0.999) for step in (0, 30, 50_000)],
)

_picture_weight = Exercise(
    answer=lambda a: a / (1 - a),
    mistakes=[
        (
            lambda a: (1 - a) / a,
            "it is upside down: where little noise was added, a small error of the picture is a "
            "large error of the noise.",
        ),
        (
            lambda a: (a / (1 - a)).sqrt(),
            "that is the factor between the two errors; the loss squares them, and the factor too.",
        ),
        (
            lambda a: ((1 - a) / a).sqrt(),
            "that turns an error of the noise into one of the picture, and is not squared: turn it "
            "around, and square it.",
        ),
        (
            lambda a: 1 / (1 - a),
            "that is the weight in the loss of v; the noise's differs from it by 1.",
        ),
        (
            lambda a: 1 / a,
            "you divided by the picture's factor; solve eq. 4 for the noise instead, and see what "
            "stands before x_0.",
        ),
        (
            lambda a: a,
            "you left out that the noise is divided by its own factor, sqrt(1 - alpha_bar).",
        ),
    ],
    cases=[(_alpha_bars,), (NoiseSchedule("cosine", 37).alpha_bars,)],
)


def check_simple_loss(function: Callable[..., Tensor]) -> None:
    """simple_loss(network, x0, t, noise, alpha_bars) -> eq. 14, shape ()."""
    print(_simple_loss.judge(function))


def check_noise_from_v(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """noise_from_v(x_t, v, alpha_bar) -> epsilon, shape of x_t."""
    print(_noise_from_v.judge(function))


def check_ema_update(function: Callable[[Tensor, Tensor, int, float], Tensor]) -> None:
    """ema_update(average, current, step, ema) -> the average after a step, shape of both."""
    # On copies, so that an answer may work in place.
    print(_ema_update.judge(lambda average, *others: function(average.clone(), *others)))


def check_picture_weight(function: Callable[[Tensor], Tensor]) -> None:
    """picture_weight(alpha_bars) -> what an error of x_0 counts in the loss of the noise, (T,)."""
    print(_picture_weight.judge(function))
