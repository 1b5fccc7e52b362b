"""Pages 09 and 10."""

import torch


def _ahead(y, a, b, slope):
    return y + (b - a) * slope(y, a)


def _two_slopes(y, a, b, slope):
    return slope(y, a) + slope(_ahead(y, a, b, slope), b)


def _off(states):
    return states.diff(dim=0) * (len(states) - 1) - states[-1] + states[0]


def _lengths(states):
    return (states[1:] - states[:-1]).square().sum(2).sqrt().sum(0)


WRONG = {
    "check_tweedie": [
        (lambda x, s, a, b: (x + b * s) / a, "sigma comes in twice"),
        (lambda x, s, a, b: (x - b**2 * s) / a, "went downhill"),
        (lambda x, s, a, b: (x - b * s) / a, "took the score for epsilon"),
        (lambda x, s, a, b: x + b * b * s, "divide by signal"),
        (lambda x, s, a, b: x / a + b * b * s, "not the score's part"),
        (lambda x, s, a, b: (x + s) / a, "multiplied by sigma^2"),
        (lambda x, s, a, b: -b * s, "predicted noise"),
        (lambda x, s, a, b: x, "for the first case"),
    ],
    "check_reverse_step": [
        (lambda x, s, b, z: x + b / 2 * (x + s) + b**0.5 * z, "belongs to the ODE"),
        (lambda x, s, b, z: x - b * (x / 2 + s) + b**0.5 * z, "forward in time"),
        (lambda x, s, b, z: x - b * x / 2 + b * s + b**0.5 * z, "enlarges it"),
        (lambda x, s, b, z: x + b * x / 2 - b * s + b**0.5 * z, "went downhill"),
        (lambda x, s, b, z: x + b * (x / 2 + s + z), "multiply z by its root"),
        (lambda x, s, b, z: x + b * (x / 2 + s), "noise is missing"),
        (lambda x, s, b, z: x + b * (x / 2 + s) - b**0.5 * z, "has no direction"),
        (lambda x, s, b, z: b * (x / 2 + s) + b**0.5 * z, "add it to x"),
        (lambda x, s, b, z: x, "for the first case"),
    ],
    "check_heun_step": [
        (_ahead, "Euler's step"),
        (lambda y, a, b, f: y + (b - a) / 2 * (f(y, a) + f(y, b)), "old point"),
        (
            lambda y, a, b, f: y + (b - a) / 2 * (f(y, a) + f(_ahead(y, a, b, f), a)),
            "noise level is sigma_next",
        ),
        (lambda y, a, b, f: y + (b - a) * _two_slopes(y, a, b, f), "take their mean"),
        (
            lambda y, a, b, f: _ahead(y, a, b, f) + (b - a) / 2 * _two_slopes(y, a, b, f),
            "repeat the step from y",
        ),
        (lambda y, a, b, f: y + (b - a) * f(_ahead(y, a, b, f), b), "second slope alone"),
        (
            lambda y, a, b, f: y + (a - b) / 2 * (f(y, a) + f(y + (a - b) * f(y, a), 2 * a - b)),
            "toward more noise",
        ),
        (
            lambda y, a, b, f: _ahead(
                y, a, b, lambda *_: f(_ahead(y, a, (a + b) / 2, f), (a + b) / 2)
            ),
            "midpoint method",
        ),
        (lambda y, a, b, f: y, "for the first case"),
    ],
    "check_noise_from_velocity": [
        (lambda x, v, t: x - t * v, "the clean image"),
        (lambda x, v, t: x + t * v, "not of t"),
        (lambda x, v, t: x + v, "only 1 - t of it is left"),
        (lambda x, v, t: x - v + t * v, "toward the noise"),
        (lambda x, v, t: x / t, "the image in x_t for 0"),
        (lambda x, v, t: (x - v + t * v) / t, "velocity for the image"),
        (lambda x, v, t: t * x + (1 - t) * v, "stay whole"),
        (lambda x, v, t: v, "for the first case"),
    ],
    "check_logit_normal": [
        (lambda z, m, s: 1 / (1 + (-z).exp()), "whatever is asked for"),
        (lambda z, m, s: m + s * z, "that is the logit"),
        (lambda z, m, s: m + s * z.sigmoid(), "before the sigmoid"),
        (lambda z, m, s: ((z - m) / s).sigmoid(), "standardized z"),
        (lambda z, m, s: (m + s * z).exp(), "log-normal"),
        (lambda z, m, s: torch.special.ndtr(m + s * z), "distribution function"),
        (lambda z, m, s: (m + s * s * z).sigmoid(), "without a square"),
        (lambda z, m, s: z, "for the first case"),
    ],
    "check_straightness": [
        (lambda x: (x.diff(dim=0) - x[-1] + x[0]).square().sum(2).mean(), "time 1/K"),
        (lambda x: (len(x) * x.diff(dim=0) - x[-1] + x[0]).square().sum(2).mean(), "but K steps"),
        (lambda x: _off(x).square().mean(), "over the two coordinates"),
        (lambda x: _off(x).square().sum() / x.shape[1], "added up the steps"),
        (lambda x: _off(x).square().sum(2).sqrt().mean(), "length of the deviation"),
        (lambda x: 2 * ((len(x) - 1) * x.diff(dim=0)).square().mean(), "mean squared velocity"),
        (lambda x: (_lengths(x) / (x[-1] - x[0]).norm(dim=1)).mean(), "another measure"),
        (lambda x: _off(x).sum(2).square().mean(), "square each coordinate first"),
        (lambda x: _off(x).square().sum(2).mean().item(), "returns float"),
        (lambda x: x.mean(), "for the first case"),
    ],
}
RIGHT = {
    "check_noise_from_velocity": lambda x, v, t: (x - t * v) + v,
    "check_logit_normal": lambda z, m, s: 1 / (1 + (-m - s * z).exp()),
    "check_straightness": lambda x: 2 * _off(x).square().mean(),
    "check_tweedie": lambda x, s, a, b: x / a + b * b / a * s,
    "check_reverse_step": lambda x, s, b, z: x * (1 + b / 2) + b * s + z * b**0.5,
    "check_heun_step": lambda y, a, b, f: (
        (y + _ahead(y, a, b, f)) / 2 + (b - a) / 2 * f(_ahead(y, a, b, f), b)
    ),
}
