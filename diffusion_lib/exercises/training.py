"""Exercises of pages 04 and 04b: training, and where the loss comes from."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say
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
            "alpha_bar and 1 - alpha_bar are variances; the coefficients of image and noise are "
            "their roots.",
        ),
        (
            lambda network, x0, t, noise, bars: (network(x0, t) - noise).square().mean(),
            "you showed the network the clean image, in which there is no noise to find: it "
            "has to see x_t.",
        ),
        (
            lambda network, x0, t, noise, bars: (network(x0 + noise, t) - noise).square().mean(),
            "you added the noise at full strength whatever t is; mix image and noise as in eq. 4.",
        ),
        (
            lambda network, x0, t, noise, bars: (
                (network(_noised(x0, t, noise, bars), t) - x0).square().mean()
            ),
            "you compared the output with the image; in eq. 14 the network is asked for the noise.",
        ),
        (
            lambda network, x0, t, noise, bars: (
                (network(_noised(x0, t - 1, noise, bars), t) - noise).square().mean()
            ),
            "you took alpha_bars[t - 1]; our t counts from 0, so alpha_bars[t] has step t in it.",
        ),
        (
            lambda *args: _error(*args).square().sum(),
            "that is the sum over all pixels, which grows with the batch and the image; return "
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
            "that is x_0. Multiply the two equations by the other coefficients, and add.",
        ),
        (
            lambda x_t, v, a: a**0.5 * x_t + (1 - a) ** 0.5 * v,
            "the two coefficients are swapped: where alpha_bar is 1, there is no noise in x_t, "
            "and v is all noise.",
        ),
        (
            lambda x_t, v, a: (1 - a) ** 0.5 * x_t - a**0.5 * v,
            "the sign of v is wrong: noise has a plus in v, the image a minus.",
        ),
        (
            lambda x_t, v, a: (1 - a) * x_t + a * v,
            "the coefficients want roots: alpha_bar and 1 - alpha_bar are variances.",
        ),
        (
            lambda x_t, v, a: v,
            "you returned v itself; it is the noise only where alpha_bar is 1.",
        ),
        (
            lambda x_t, v, a: v / a**0.5,
            "you solved v = sqrt(alpha_bar) noise, without the image in v; use x_t to get rid of "
            "the image.",
        ),
    ],
    cases=[(_x, _noise, a) for a in (0.9, 0.5, 0.1)],
)


def _decay(step: int, ema: float) -> float:
    return min(ema, (1 + step) / (10 + step)) if step else 0.0


def _mix(average: Tensor, current: Tensor, decay: float) -> Tensor:
    return decay * average + (1 - decay) * current


_ema_update = Exercise(
    answer=lambda average, current, step, ema: _mix(average, current, _decay(step, ema)),
    mistakes=[
        (
            lambda average, current, step, ema: _mix(average, current, ema),
            "there is no warm-up: the decay is ema from the first step on, so the random weights "
            "of the start stay in the average for a long time.",
        ),
        (
            lambda average, current, step, ema: _mix(
                average, current, min(ema, (1 + step) / (10 + step))
            ),
            "at step 0 the average must be a copy of the weights: the decay is 0 there, and the "
            "formula gives 0.1.",
        ),
        (
            lambda average, current, step, ema: _mix(
                average, current, (1 + step) / (10 + step) if step else 0.0
            ),
            "the decay grows towards 1 without end: it must stop at ema.",
        ),
        (
            lambda average, current, step, ema: _mix(
                average, current, max(ema, (1 + step) / (10 + step)) if step else 0.0
            ),
            "you took the larger of the two decays; early on the smaller one must hold.",
        ),
        (
            lambda average, current, step, ema: _mix(current, average, _decay(step, ema)),
            "the roles are swapped: the old average has the large share, the new weights have the "
            "small one.",
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

_mean_from_score = Exercise(
    answer=lambda x_t, score, alpha: (x_t + (1 - alpha) * score) / alpha**0.5,
    mistakes=[
        (
            lambda x_t, score, alpha: (x_t - (1 - alpha) * score) / alpha**0.5,
            "the sign is wrong: the score points to where the density is higher, so the step adds "
            "it.",
        ),
        (
            lambda x_t, score, alpha: x_t + (1 - alpha) * score,
            "you left out the division by sqrt(alpha_t), which undoes the shrinking of the forward "
            "step.",
        ),
        (
            lambda x_t, score, alpha: (x_t + (1 - alpha) * score) / alpha,
            "you divided by alpha_t, which is a variance: take its root.",
        ),
        (
            lambda x_t, score, alpha: (x_t + (1 - alpha) ** 0.5 * score) / alpha**0.5,
            "you multiplied the score by the root of beta_t: put epsilon = -sqrt(1 - alpha_bar) "
            "score into eq. 10, and the roots of 1 - alpha_bar cancel.",
        ),
        (
            lambda x_t, score, alpha: (x_t + alpha * score) / alpha**0.5,
            "you multiplied the score by alpha_t; in eq. 10 it is beta_t = 1 - alpha_t.",
        ),
    ],
    cases=[(_x, _noise, alpha) for alpha in (0.99, 0.9, 0.5)],
)

_picture_weight = Exercise(
    answer=lambda a: a / (1 - a),
    mistakes=[
        (
            lambda a: (1 - a) / a,
            "it is upside down: where little noise was added, a small error of the image is a "
            "large error of the noise.",
        ),
        (
            lambda a: (a / (1 - a)).sqrt(),
            "that is the factor between the two errors; the loss squares them, and the factor too.",
        ),
        (
            lambda a: ((1 - a) / a).sqrt(),
            "that turns an error of the noise into one of the image, and is not squared: turn it "
            "around, and square it.",
        ),
        (
            lambda a: 1 / (1 - a),
            "that is the weight in the loss of v; the noise's differs from it by 1.",
        ),
        (
            lambda a: 1 / a,
            "you divided by the image's coefficient; solve eq. 4 for the noise instead, and see "
            "what stands before x_0.",
        ),
        (
            lambda a: a,
            "you left out that the noise is divided by its own coefficient, sqrt(1 - alpha_bar).",
        ),
    ],
    cases=[(_alpha_bars,), (NoiseSchedule("cosine", 37).alpha_bars,)],
)


def check_simple_loss(function: Callable[..., Tensor]) -> None:
    """simple_loss(network, x0, t, noise, alpha_bars) -> eq. 14, shape ()."""
    say(_simple_loss.judge(function), function)


def check_noise_from_v(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """noise_from_v(x_t, v, alpha_bar) -> epsilon, shape of x_t."""
    say(_noise_from_v.judge(function), function)


def check_ema_update(function: Callable[[Tensor, Tensor, int, float], Tensor]) -> None:
    """ema_update(average, current, step, ema) -> the average after a step, shape of both."""
    # On copies, so that an answer may work in place.
    verdict = _ema_update.judge(lambda average, *others: function(average.clone(), *others))
    say(verdict, function)


def check_mean_from_score(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """mean_from_score(x_t, score, alpha) -> the mean of the reverse step, shape of x_t."""
    say(_mean_from_score.judge(function), function)


def check_picture_weight(function: Callable[[Tensor], Tensor]) -> None:
    """picture_weight(alpha_bars) -> what an error of x_0 counts in the loss of the noise, (T,)."""
    say(_picture_weight.judge(function), function)
