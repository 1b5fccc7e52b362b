"""Page 01."""

import torch

WRONG = {
    "check_alpha_bars": [
        (lambda betas: torch.cumprod(betas, 0), "multiplied the betas"),
        (lambda betas: torch.cumsum(1 - betas, 0), "added the alphas up"),
        (lambda betas: 1 - betas, "these are the alphas"),
        (lambda betas: 1 - torch.cumsum(betas, 0), "one minus the sum"),
        (lambda betas: torch.cumprod(1 - betas, 0) / (1 - betas), "start with 1"),
        (lambda betas: torch.exp(torch.cumsum((1 - betas).log(), 0) / 2), "sqrt(alpha_bar)"),
        (lambda betas: 1 - torch.cumprod(1 - betas, 0), "1 - alpha_bar"),
        (lambda betas: torch.prod(1 - betas), "shape is ()"),
        (lambda betas: torch.cumprod(1 - betas, 0).tolist(), "returns list"),
        (lambda betas: None, "return"),
        (lambda betas: torch.cumprod(1 - betas), "TypeError"),
        (lambda betas: torch.zeros_like(betas), "gives 0.000, 0.000, 0.000 ..., not 1.000"),
    ],
    "check_recover_x0": [
        (lambda x, e, a: (x - e) / a**0.5, "scaled by sqrt(1 - alpha_bar)"),
        (lambda x, e, a: (x - (1 - a) * e) / a**0.5, "its factor is the root"),
        (lambda x, e, a: x - (1 - a) ** 0.5 * e, "still faded"),
        (lambda x, e, a: (x - (1 - a) ** 0.5 * e) / a, "scaled by its root"),
        (lambda x, e, a: (x - (1 - a) * e) / a, "both the noise's and the picture's"),
        (lambda x, e, a: x / a**0.5 - (1 - a) ** 0.5 * e, "mind the brackets"),
        (lambda x, e, a: (x + (1 - a) ** 0.5 * e) / a**0.5, "take it away"),
        (lambda x, e, a: x, "for the first case"),
    ],
    "check_jump_on": [
        (lambda x, e, s, t: t**0.5 * x + (1 - t) ** 0.5 * e, "as if from the clean picture"),
        (lambda x, e, s, t: (t / s) ** 0.5 * x + (1 - t) ** 0.5 * e, "some noise of its own"),
        (lambda x, e, s, t: (t / s) ** 0.5 * x + (s - t) ** 0.5 * e, "fades on the way too"),
        (lambda x, e, s, t: (s / t) ** 0.5 * x + (s / t - 1) ** 0.5 * e, "upside down"),
        (lambda x, e, s, t: t / s * x + (1 - t / s) * e, "share of variance"),
        (lambda x, e, s, t: (t / s) ** 0.5 * x + (1 - t / s) * e, "factor of the noise"),
        (lambda x, e, s, t: x, "for the first case"),
    ],
    "check_half_gone": [
        (lambda bars: int((bars >= 0.5).sum()) - 1, "the last timestep"),
        (lambda bars: int((bars >= 0.5).sum()) + 1, "count from 1"),
        (lambda bars: int((bars.sqrt() >= 0.5).sum()), "compared sqrt(alpha_bar)"),
        (lambda bars: len(bars) // 2, "half of T"),
        (lambda bars: 0, "gives 0, not 259"),
    ],
}

RIGHT = {
    "check_alpha_bars": lambda betas: torch.exp(torch.log1p(-betas).cumsum(0)).float(),
    "check_recover_x0": lambda x, e, a: x / a**0.5 - ((1 - a) / a) ** 0.5 * e,
    "check_jump_on": lambda x, e, s, t: (t**0.5 * x + (s - t) ** 0.5 * e) / s**0.5,
    "check_half_gone": lambda bars: (bars < 1 - bars).nonzero()[0, 0],
}
