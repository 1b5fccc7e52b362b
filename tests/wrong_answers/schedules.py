"""Pages 02 and 02b."""

import math

import torch

from diffusion_lib import NoiseSchedule


def before(bars):
    return torch.cat([torch.ones(1), bars[:-1]])


def count_up(end, enough):
    steps = 2
    while not enough(NoiseSchedule("linear", steps, beta_end=end).alpha_bars[-1].item()):
        steps += 1
    return steps


WRONG = {
    "check_betas": [
        (lambda bars: 1 - bars / before(bars), "right but for the clip"),
        (lambda bars: (1 - bars).clamp(max=0.999), "all the noise so far"),
        (lambda bars: bars / before(bars), "these are the alphas"),
        (
            lambda bars: torch.nn.functional.pad(1 - bars[1:] / bars[:-1], (1, 0)).clamp(max=0.999),
            "first beta is 0",
        ),
        (lambda bars: (1 - before(bars) / bars).clamp(max=0.999), "upside down"),
        (lambda bars: (1 - (bars / before(bars)) ** 0.5).clamp(max=0.999), "took a root"),
        (lambda bars: before(bars) - bars, "take the ratio"),
        (lambda bars: (1 - bars[1:] / bars[:-1]).clamp(max=0.999), "shape is (49,)"),
        (lambda bars: [1 - bars[0]], "returns list"),
        (lambda bars: torch.zeros_like(bars), "for the first case"),
    ],
    "check_shift": [
        (lambda bars, factor: torch.sigmoid(bars.logit() + math.log(factor**2)), "wrong way"),
        (lambda bars, factor: torch.sigmoid(bars.logit() - math.log(factor)), "half the way"),
        (lambda bars, factor: torch.sigmoid(bars.logit() - 2 * math.log(factor**2)), "too far"),
        (lambda bars, factor: torch.sigmoid(bars.logit() - math.log10(factor**2)), "base 10"),
        (lambda bars, factor: torch.sigmoid(bars.logit() - math.log2(factor**2)), "base 2"),
        (lambda bars, factor: bars.logit() - 2 * math.log(factor), "back to alpha_bar"),
        (lambda bars, factor: (bars.log() - 2 * math.log(factor)).exp(), "divided alpha_bar"),
        (lambda bars, factor: bars / (1 - bars) / factor**2, "SNR itself"),
        (lambda bars, factor: 1 - bars / (bars + factor**2 * (1 - bars)), "noise's share"),
        (lambda bars, factor: torch.sigmoid(bars.logit() - torch.log(factor)), "TypeError"),
        (lambda bars, factor: bars, "for the first case"),
    ],
    "check_to_variance_preserving": [
        (lambda x, sigma: x / (1 + sigma**2), "divide by its root"),
        (lambda x, sigma: x / (1 + sigma), "standard deviations don't add"),
        (lambda x, sigma: x / sigma, "must sum to 1"),
        (lambda x, sigma: x * (1 + sigma**2) ** 0.5, "you multiplied"),
        (lambda x, sigma: x * (1 - sigma**2) ** 0.5, "ratio of the two"),
        (lambda x, sigma: x, "for the first case"),
    ],
    "check_zero_terminal_snr": [
        (
            lambda bars: (bars - bars[-1]) / (bars[0] - bars[-1]) * bars[0],
            "you rescaled alpha_bar",
        ),
        (
            lambda bars: (bars.sqrt() - bars[-1].sqrt()) / (1 - bars[-1].sqrt() / bars[0].sqrt()),
            "square it",
        ),
        (lambda bars: (bars.sqrt() - bars[-1].sqrt()).square(), "first one is lower too"),
        (lambda bars: bars - bars[-1], "subtracted from alpha_bar"),
        (lambda bars: torch.where(bars == bars[-1], 0.0, bars), "only the last step"),
        (
            lambda bars: (
                (bars.sqrt() - bars.sqrt()[-1]) / (bars.sqrt()[0] - bars.sqrt()[-1])
            ).square(),
            "to 1",
        ),
        (lambda bars: bars.clone(), "nothing has changed"),
        (lambda bars: bars[:-1], "shape is (99,)"),
        (lambda bars: torch.zeros_like(bars), "for the first case"),
    ],
    "check_fewest_steps": [
        (lambda end, left: count_up(end, lambda bar: bar < left), "compared alpha_bar"),
        (lambda end, left: count_up(end, lambda bar: bar**0.25 < left), "twice"),
        (lambda end, left: count_up(end, lambda bar: bar**0.5 < left) - 1, "one too few"),
        (lambda end, left: count_up(end, lambda bar: bar**0.5 < left) + 1, "one too many"),
        (
            lambda end, left: (
                1 + int((NoiseSchedule(beta_end=end).alpha_bars.sqrt() < left).nonzero()[0])
            ),
            "cut a schedule of 1000 steps off",
        ),
        (
            lambda end, left: int(
                (NoiseSchedule(beta_end=end).alpha_bars.sqrt() < left).nonzero()[0]
            ),
            "that is a timestep",
        ),
        (lambda end, left: math.ceil(-4 * math.log(left) / end), "for the first case"),
    ],
}

RIGHT = {
    "check_betas": lambda bars: (-torch.expm1(bars.log().diff(prepend=torch.zeros(1)))).clamp(
        max=0.999
    ),
    "check_shift": lambda bars, factor: bars / (bars + factor**2 * (1 - bars)),
    "check_to_variance_preserving": lambda x, sigma: x * (sigma**2 + 1) ** -0.5,
    "check_zero_terminal_snr": lambda bars: (
        bars[0] * ((bars.sqrt() - bars[-1].sqrt()) / (bars[0].sqrt() - bars[-1].sqrt())) ** 2
    ),
    "check_fewest_steps": lambda end, left: count_up(end, lambda bar: bar < left**2),
}
