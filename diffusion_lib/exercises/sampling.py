"""Exercises of pages 05 and 05b: sampling, and editing images."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say
from diffusion_lib.schedules import NoiseSchedule

_random = torch.Generator().manual_seed(5)
_x, _noise, _other = torch.randn(3, 4, 3, 8, 8, generator=_random, dtype=torch.float64)
_mask = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
_mask[..., :5, 2:] = 1
_alpha_bars = torch.cat([NoiseSchedule("cosine", 50).alpha_bars, torch.ones(1)])  # [-1]: clean


def _ddim_step_of(x: Tensor, x0: Tensor, here: float, there: float) -> Tensor:
    epsilon = (x - here**0.5 * x0) / (1 - here) ** 0.5
    return there**0.5 * x0 + (1 - there) ** 0.5 * epsilon


_ddim_step = Exercise(
    answer=_ddim_step_of,
    mistakes=[
        (lambda x, x0, here, there: x0, "that is the prediction itself, one big step to the end."),
        (
            lambda x, x0, here, there: there**0.5 * x0 + (1 - there) ** 0.5 * x,
            "you added x_t itself; the noise in it is what is left after subtracting "
            "sqrt(alpha_bar_t) x0, divided by sqrt(1 - alpha_bar_t).",
        ),
        (
            lambda x, x0, here, there: there**0.5 * x0 + (1 - there) ** 0.5 * (x - here**0.5 * x0),
            "the noise is not scaled to standard deviation 1 yet: divide it by "
            "sqrt(1 - alpha_bar_t).",
        ),
        (
            lambda x, x0, here, there: (
                there**0.5 * x0 + (1 - there) ** 0.5 * (x - x0) / (1 - here) ** 0.5
            ),
            "you subtracted all of x0, but x_t holds only sqrt(alpha_bar_t) of it.",
        ),
        (
            lambda x, x0, here, there: there**0.5 * x0 + (x - here**0.5 * x0),
            "the noise is as strong as it was at t; at s its coefficient is sqrt(1 - alpha_bar_s).",
        ),
        (
            lambda x, x0, here, there: (
                x0 + (1 - there) ** 0.5 / (1 - here) ** 0.5 * (x - here**0.5 * x0)
            ),
            "the prediction is not scaled: at s its coefficient is sqrt(alpha_bar_s).",
        ),
        (
            lambda x, x0, here, there: there * x0 + (1 - there) * (x - here * x0) / (1 - here),
            "you used variances as factors: every alpha_bar and 1 - alpha_bar needs a root.",
        ),
    ],
    cases=[(_x, _other, 0.1, 0.3), (_x, _other, 0.5, 0.9), (_x, _other, 0.8, 1.0)],
)


def _dynamic_clip_of(x0: Tensor, part: float) -> Tensor:
    reach = torch.quantile(x0.flatten(1).abs(), part, dim=1).clamp(min=1).view(-1, 1, 1, 1)
    return (x0 / reach).clamp(-1, 1)


def _reach(x0: Tensor, part: float) -> Tensor:
    return torch.quantile(x0.flatten(1).abs(), part, dim=1).view(-1, 1, 1, 1)


_sizes = torch.tensor([0.2, 0.9, 2.0, 4.0], dtype=torch.float64).view(4, 1, 1, 1)
_dynamic_clip = Exercise(
    answer=_dynamic_clip_of,
    mistakes=[
        (
            lambda x0, part: x0.clamp(-1, 1),
            "that is static clipping: divide by the quantile first.",
        ),
        (
            lambda x0, part: (x0 / _reach(x0, part)).clamp(-1, 1),
            "an image that lies within [-1, 1] is stretched: divide by at least 1.",
        ),
        (
            lambda x0, part: (x0 / torch.quantile(x0.abs(), part).clamp(min=1)).clamp(-1, 1),
            "you took one quantile of the whole batch: each image needs its own.",
        ),
        (
            lambda x0, part: (
                x0 / torch.quantile(x0.flatten(1), part, 1).clamp(min=1).view(-1, 1, 1, 1)
            ).clamp(-1, 1),
            "you forgot the absolute value: dark pixels can be out of range, too.",
        ),
        (
            lambda x0, part: x0 / _reach(x0, part).clamp(min=1),
            "a few pixels are still out of range: clamp to [-1, 1] after dividing.",
        ),
        (
            lambda x0, part: x0.clamp(
                -_reach(x0, part).clamp(min=1), _reach(x0, part).clamp(min=1)
            ),
            "between plus and minus the quantile it is still out of range: divide by it.",
        ),
        (
            lambda x0, part: x0 / x0.flatten(1).abs().amax(1).clamp(min=1).view(-1, 1, 1, 1),
            "you divided by the largest pixel, so that a single outlier makes the image pale; take "
            "the quantile.",
        ),
    ],
    cases=[(_x * _sizes - 0.3 * _sizes, 0.9), (_noise * _sizes - 0.3, 0.99)],
)


def _leap_of(x: Tensor, epsilon: Tensor, here: float, there: float) -> Tensor:
    x0 = (x - (1 - here) ** 0.5 * epsilon) / here**0.5
    return there**0.5 * x0 + (1 - there) ** 0.5 * epsilon


_leap = Exercise(
    answer=_leap_of,
    mistakes=[
        (
            lambda x, epsilon, here, there: there**0.5 * x + (1 - there) ** 0.5 * epsilon,
            "you took x for the clean image; first subtract its noise and undo its scaling.",
        ),
        (
            lambda x, epsilon, here, there: (
                there**0.5 * (x - (1 - here) ** 0.5 * epsilon) + (1 - there) ** 0.5 * epsilon
            ),
            "the clean image is still scaled: divide what is left without the noise by "
            "sqrt(alpha_bar_here).",
        ),
        (
            lambda x, epsilon, here, there: (
                there**0.5 * (x - (1 - here) ** 0.5 * epsilon) / here**0.5
                + (1 - here) ** 0.5 * epsilon
            ),
            "the image is right, but the noise is as strong as it was; it has to be as strong "
            "as at the new place.",
        ),
        (
            lambda x, epsilon, here, there: _leap_of(x, epsilon, there, here),
            "you went from there to here: the two alpha_bars have changed places.",
        ),
        (
            lambda x, epsilon, here, there: (x - (1 - here) ** 0.5 * epsilon) / here**0.5,
            "that is the clean image; now scale it and add the noise again, as much as there is "
            "at the new place.",
        ),
        (
            lambda x, epsilon, here, there: (
                there * (x - (1 - here) * epsilon) / here + (1 - there) * epsilon
            ),
            "you used variances as factors: every alpha_bar and 1 - alpha_bar needs a root.",
        ),
    ],
    # Up (towards the noise) first: on the way up more mistakes stay numbers.
    cases=[(_x, _noise, 0.9, 0.5), (_x, _noise, 0.6, 0.1), (_x, _noise, 0.2, 0.7)],
    if_nan=(
        "there is the root of a negative number in it: the jump of page 01 only leads towards the "
        "noise. Split x into image and noise, and combine them anew."
    ),
)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    return torch.acos((a * b).sum() / (a.norm() * b.norm()))


def _slerp_of(a: Tensor, b: Tensor, share: float) -> Tensor:
    angle = _angle(a, b)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)


def _with_length_of_ends(a: Tensor, b: Tensor, share: float) -> Tensor:
    straight = (1 - share) * a + share * b
    return straight / straight.norm() * ((1 - share) * a.norm() + share * b.norm())


_slerp = Exercise(
    answer=_slerp_of,
    mistakes=[
        (
            lambda a, b, share: (1 - share) * a + share * b,
            "that is the straight line, which cuts through the inside of the sphere.",
        ),
        (
            lambda a, b, share: _slerp_of(b, a, share),
            "you go from b to a: share = 0 has to give a.",
        ),
        (
            lambda a, b, share: _slerp_of(a, b, share) * torch.sin(_angle(a, b)),
            "the direction is right, the length is not: divide by the sine of the whole angle.",
        ),
        (
            lambda a, b, share: (
                (torch.cos((1 - share) * _angle(a, b)) * a + torch.cos(share * _angle(a, b)) * b)
                / torch.sin(_angle(a, b))
            ),
            "the weights are sines, not cosines: at share = 0 the weight of b has to be 0.",
        ),
        (
            lambda a, b, share: (1 - share) ** 0.5 * a + share**0.5 * b,
            "roots keep the length if a and b are at a right angle, but they turn fast at the ends "
            "and slowly in the middle; use the angle.",
        ),
        (
            _with_length_of_ends,
            "you stretched the straight line: on the sphere, but it turns fast in the middle and "
            "slowly at the ends; weigh with the sines of parts of the angle.",
        ),
    ],
    cases=[
        # (The second pair is far from a right angle, where shortcuts would pass.)
        (a, b, share)
        for a, b in ((_x[0], _noise[0]), (_x[1], 0.8 * _x[1] + 0.6 * _noise[1]))
        for share in (0.25, 0.5, 0.9)
    ],
    if_nan=(
        "some of it is nan: the cosine of the angle has to lie between -1 and 1, so divide the "
        "product of a and b by both lengths."
    ),
)


def _guess(x: Tensor, t: int) -> Tensor:
    """A denoiser that is easily computed, and tells both its arguments."""
    return 0.7 * x.clamp(-1, 1) + 0.01 * t


def _noised(image: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    return alpha_bar**0.5 * image + (1 - alpha_bar) ** 0.5 * noise


def _down(x: Tensor, guess: Callable, bars: Tensor, timesteps: list, end=(-1,), noise=None):
    """From x at timesteps[0] on with ddim; `noise` is put on at each step, by default that in x."""
    for t, s in pairwise([*timesteps, *end]):
        x0 = guess(x, t)
        in_x = (x - bars[t] ** 0.5 * x0) / (1 - bars[t]) ** 0.5
        x = _noised(x0, in_x if noise is None else noise, bars[s])
    return x


def _redraw_from(start: Callable[[Tensor, Tensor, Tensor, list], Tensor]) -> Callable:
    def redraw(sketch, noise, predict, bars, timesteps):
        return _down(start(sketch, noise, bars, timesteps), predict, bars, timesteps)

    return redraw


def _start(sketch: Tensor, noise: Tensor, bars: Tensor, timesteps: list) -> Tensor:
    return _noised(sketch, noise, bars[timesteps[0]])


_redraw = Exercise(
    answer=_redraw_from(_start),
    mistakes=[
        (
            _redraw_from(lambda sketch, noise, bars, ts: noise),
            "you start from pure noise, so nothing of the sketch can come through.",
        ),
        (
            _redraw_from(lambda sketch, noise, bars, ts: sketch),
            "you start from the clean sketch; the network expects the noise of timesteps[0] on it.",
        ),
        (
            _redraw_from(lambda sketch, noise, bars, ts: _noised(sketch, noise, bars[-2])),
            "you noised the sketch to the last timestep of the schedule; timesteps[0] is where the "
            "trajectory begins.",
        ),
        (
            _redraw_from(lambda sketch, noise, bars, ts: sketch + (1 - bars[ts[0]]) ** 0.5 * noise),
            "you added the noise, but did not multiply the sketch by sqrt(alpha_bar) first.",
        ),
        (
            _redraw_from(
                lambda sketch, noise, bars, ts: bars[ts[0]] * sketch + (1 - bars[ts[0]]) * noise
            ),
            "you noised the sketch with variances as factors; both need a root.",
        ),
        (
            lambda *case: _down(_start(*case[:2], *case[3:]), *case[2:], end=()),
            "the last step is missing: from the last timestep on to the clean image, where "
            "alpha_bar is 1.",
        ),
        (
            lambda *case: _down(_start(*case[:2], *case[3:]), *case[2:], end=(0,)),
            "the last step ends at timestep 0, where a trace of noise is left; the clean image "
            "has alpha_bar = 1, which is alpha_bars[-1] here.",
        ),
        (
            lambda sketch, noise, guess, bars, ts: guess(_start(sketch, noise, bars, ts), ts[0]),
            "that is the first prediction, a blurred one; go down through all the timesteps.",
        ),
        (
            lambda *case: _down(_start(*case[:2], *case[3:]), *case[2:], noise=case[1]),
            "you put the first noise back on at every step; take the noise that is in x now, which "
            "follows from x and the prediction.",
        ),
    ],
    cases=[
        (_x, _noise, _guess, _alpha_bars, [35, 20, 8, 0]),
        (_x[:1], _noise[:1], _guess, _alpha_bars, [12, 3]),
    ],
)

_paste_known = Exercise(
    answer=lambda x, known, mask, bar, noise: mask * _noised(known, noise, bar) + (1 - mask) * x,
    mistakes=[
        (
            lambda x, known, mask, bar, noise: (1 - mask) * _noised(known, noise, bar) + mask * x,
            "the mask is upside down: it is 1 where the image is known.",
        ),
        (
            lambda x, known, mask, bar, noise: mask * known + (1 - mask) * x,
            "you pasted the clean image; the rest of x has noise on it, and the network expects "
            "the same amount everywhere.",
        ),
        (
            lambda x, known, mask, bar, noise: (
                mask * (known + (1 - bar) ** 0.5 * noise) + (1 - mask) * x
            ),
            "you added noise to the known part without multiplying it by sqrt(alpha_bar).",
        ),
        (
            lambda x, known, mask, bar, noise: (
                mask * (bar * known + (1 - bar) * noise) + (1 - mask) * x
            ),
            "you noised the known part with variances as factors; both need a root.",
        ),
        (
            lambda x, known, mask, bar, noise: mask * _noised(known, noise, bar) + x,
            "you added the known part to x instead of replacing it: take x only where the mask "
            "is 0.",
        ),
        (
            lambda x, known, mask, bar, noise: _noised(mask * known + (1 - mask) * x, noise, bar),
            "you noised x once more: noise belongs on the known part alone, before it is pasted.",
        ),
        (
            lambda x, known, mask, bar, noise: mask * _noised(known, noise, bar),
            "the unknown part is gone: outside the mask x stays as it is.",
        ),
    ],
    cases=[(_x, _other, _mask, 0.3, _noise), (_x, _other, 1 - _mask, 0.8, _noise)],
)


def check_ddim_step(function: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """ddim_step(x_t, x0, alpha_bar_t, alpha_bar_s) -> x_s."""
    say(_ddim_step.judge(function), function)


def check_dynamic_clip(function: Callable[[Tensor, float], Tensor]) -> None:
    """dynamic_clip(x0, part) -> x0 within [-1, 1], (N, C, H, W)."""
    say(_dynamic_clip.judge(function), function)


def check_leap(function: Callable[[Tensor, Tensor, float, float], Tensor]) -> None:
    """leap(x, epsilon, alpha_bar_here, alpha_bar_there) -> x at the other noise level."""
    say(_leap.judge(function), function)


def check_slerp(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """slerp(a, b, share) -> a tensor of their shape, share of the way along the arc."""
    say(_slerp.judge(function), function)


def check_redraw(function: Callable[[Tensor, Tensor, Callable, Tensor, list], Tensor]) -> None:
    """redraw(sketch, noise, predict, alpha_bars, timesteps) -> an image, shape of sketch."""
    say(_redraw.judge(function), function)


def check_paste_known(function: Callable[[Tensor, Tensor, Tensor, float, Tensor], Tensor]) -> None:
    """paste_known(x, known, mask, alpha_bar, noise) -> shape of x."""
    say(_paste_known.judge(function), function)
