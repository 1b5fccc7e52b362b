"""Page 01."""

import torch


def bar(betas, t):
    return torch.prod(1 - betas[: t + 1])


WRONG = {
    "check_add_noise": [
        (lambda x, t, e, b: (1 - b[t]).sqrt() * x + b[t].sqrt() * e, "one step with beta_t"),
        (lambda x, t, e, b: bar(b, t) * x + (1 - bar(b, t)) * e, "are variances"),
        (lambda x, t, e, b: bar(b, t).sqrt() * x + (1 - bar(b, t)) * e, "needs the root"),
        (lambda x, t, e, b: bar(b, t) * x + (1 - bar(b, t)).sqrt() * e, "the noise is right"),
        (lambda x, t, e, b: (1 - bar(b, t)).sqrt() * x + bar(b, t).sqrt() * e, "exchanged"),
        (
            lambda x, t, e, b: (1 - b[:t]).prod().sqrt() * x + (1 - (1 - b[:t]).prod()).sqrt() * e,
            "one step is missing",
        ),
        (
            lambda x, t, e, b: b.cumprod(0)[t].sqrt() * x + (1 - b.cumprod(0)[t]).sqrt() * e,
            "multiplied the betas",
        ),
        (
            lambda x, t, e, b: (1 - b.cumsum(0)[t]).sqrt() * x + b.cumsum(0)[t].sqrt() * e,
            "added the betas up",
        ),
        (lambda x, t, e, b: bar(b, t).sqrt() * x[0], "shape is"),
        (lambda x, t, e, b: None, "return"),
        (lambda x, t, e, b: torch.cumprod(1 - b), "TypeError"),
        (lambda x, t, e, b: x, "for the first case"),
    ],
    "check_recover_x0": [
        (lambda x, e, a: (x - e) / a**0.5, "scaled by sqrt(1 - alpha_bar)"),
        (lambda x, e, a: (x - (1 - a) * e) / a**0.5, "its coefficient is the root"),
        (lambda x, e, a: x - (1 - a) ** 0.5 * e, "still too faint"),
        (lambda x, e, a: (x - (1 - a) ** 0.5 * e) / a, "scaled by its root"),
        (lambda x, e, a: (x - (1 - a) * e) / a, "both the noise's and the image's"),
        (lambda x, e, a: x / a**0.5 - (1 - a) ** 0.5 * e, "mind the brackets"),
        (lambda x, e, a: (x + (1 - a) ** 0.5 * e) / a**0.5, "subtract it"),
        (lambda x, e, a: x, "for the first case"),
    ],
    "check_jump_on": [
        (lambda x, e, s, t: t**0.5 * x + (1 - t) ** 0.5 * e, "as if from the clean image"),
        (lambda x, e, s, t: (t / s) ** 0.5 * x + (1 - t) ** 0.5 * e, "already contains noise"),
        (lambda x, e, s, t: (t / s) ** 0.5 * x + (s - t) ** 0.5 * e, "is scaled down too"),
        (lambda x, e, s, t: (s / t) ** 0.5 * x + (s / t - 1) ** 0.5 * e, "upside down"),
        (lambda x, e, s, t: t / s * x + (1 - t / s) * e, "share of variance"),
        (lambda x, e, s, t: (t / s) ** 0.5 * x + (1 - t / s) * e, "the noise coefficient needs"),
        (lambda x, e, s, t: x, "for the first case"),
    ],
    "check_crossing": [
        (lambda bars, v: int((bars >= 0.5).sum()), "two coefficients are equal"),
        (lambda bars, v: int((bars * v**0.5 >= 1 - bars).sum()), "standard deviation"),
        (lambda bars, v: int((bars * v >= 1 - bars).sum()) - 1, "the last timestep"),
        (lambda bars, v: int((bars * v >= 1 - bars).sum()) + 1, "count from 1"),
        (lambda bars, v: int((bars * v >= 0.5).sum()), "with 1/2"),
        (lambda bars, v: int((bars.sqrt() * v >= (1 - bars).sqrt()).sum()), "mixed"),
        (lambda bars, v: len(bars) // 2, "in the middle"),
        (lambda bars, v: 0, "gives 0, not 152"),
    ],
}

RIGHT = {
    "check_add_noise": lambda x, t, e, b: (
        torch.log1p(-b).cumsum(0)[t].div(2).exp() * x
        + (-torch.expm1(torch.log1p(-b).cumsum(0)[t])).sqrt() * e
    ),
    "check_recover_x0": lambda x, e, a: x / a**0.5 - ((1 - a) / a) ** 0.5 * e,
    "check_jump_on": lambda x, e, s, t: (t**0.5 * x + (s - t) ** 0.5 * e) / s**0.5,
    "check_crossing": lambda bars, v: (bars < 1 / (1 + v)).nonzero()[0, 0],
}
