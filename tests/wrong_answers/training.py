"""Page 04."""

import torch
import torch.nn.functional as F


def x_t(x0, t, noise, bars):
    triples = zip(x0, t, noise, strict=True)
    return torch.stack([bars[i] ** 0.5 * x + (1 - bars[i]) ** 0.5 * e for x, i, e in triples])


def without_roots(x0, t, noise, bars):
    a = bars[t][:, None, None, None]
    return a * x0 + (1 - a) * noise


def error(f, x, t, e, bars):
    return e - f(x_t(x, t, e, bars), t)


WRONG = {
    "check_simple_loss": [
        (lambda f, x, t, e, bars: F.mse_loss(f(without_roots(x, t, e, bars), t), e), "their roots"),
        (lambda f, x, t, e, bars: F.mse_loss(f(x, t), e), "clean picture"),
        (lambda f, x, t, e, bars: F.mse_loss(f(x + e, t), e), "full strength"),
        (lambda f, x, t, e, bars: F.mse_loss(f(x_t(x, t, e, bars), t), x), "with the picture"),
        (lambda f, x, t, e, bars: F.mse_loss(f(x_t(x, t - 1, e, bars), t), e), "[t - 1]"),
        (lambda *args: (error(*args) ** 2).sum(), "sum over all pixels"),
        (lambda *args: (error(*args) ** 2).mean() ** 0.5, "no root"),
        (lambda *args: error(*args).abs().mean(), "absolute values"),
        (lambda *args: error(*args).mean() ** 2, "square first"),
        (lambda *args: (error(*args) ** 2).mean((1, 2, 3)), "shape is (4,)"),
        (lambda *args: (error(*args) ** 2).mean().item(), "returns float"),
        (lambda f, x, t, e, bars: bars[t] ** 0.5 * x, "RuntimeError"),
        (lambda f, x, t, e, bars: F.mse_loss(f(e, t), e), "for the first case"),
    ],
    "check_noise_from_v": [
        (lambda x, v, a: a**0.5 * x - (1 - a) ** 0.5 * v, "that is x_0"),
        (lambda x, v, a: a**0.5 * x + (1 - a) ** 0.5 * v, "swapped"),
        (lambda x, v, a: (1 - a) ** 0.5 * x - a**0.5 * v, "sign of v"),
        (lambda x, v, a: (1 - a) * x + a * v, "want roots"),
        (lambda x, v, a: v, "v itself"),
        (lambda x, v, a: v / a**0.5, "without the picture in v"),
        (lambda x, v, a: x, "for the first case"),
    ],
    "check_ema_update": [
        (lambda old, new, k, ema: ema * old + (1 - ema) * new, "no warm-up"),
        (
            lambda old, new, k, ema: (1 + k) / (10 + k) * old + 9 / (10 + k) * new,
            "must stop at ema",
        ),
        (
            lambda old, new, k, ema: torch.lerp(new, old, max(ema, (1 + k) / (10 + k))),
            "the larger",
        ),
        (
            lambda old, new, k, ema: torch.lerp(old, new, min(ema, (1 + k) / (10 + k))),
            "roles are swapped",
        ),
        (lambda old, new, k, ema: torch.lerp(old, new, 0.5), "plain mean"),
        (
            lambda old, new, k, ema: old + (1 - min(ema, (1 + k) / (10 + k))) * new,
            "grows and grows",
        ),
        (lambda old, new, k, ema: old, "for the first case"),
        (lambda old, new, k, ema: None, "returns None"),
    ],
    "check_picture_weight": [
        (lambda a: 1 / a - 1, "upside down"),
        (lambda a: (a / (1 - a)) ** 0.5, "squares them"),
        (lambda a: (1 / a - 1) ** 0.5, "turn it around"),
        (lambda a: 1 / (1 - a), "loss of v"),
        (lambda a: 1 / a, "solve eq. 4 for the noise"),
        (lambda a: a, "its own factor"),
        (lambda a: 1 - a, "for the first case"),
        (lambda a: (a / (1 - a)).tolist(), "returns list"),
        (lambda a: (a / (1 - a)).mean(), "shape is ()"),
    ],
}

RIGHT = {
    "check_simple_loss": lambda *args: error(*args).flatten().pow(2).sum() / args[1].numel(),
    "check_noise_from_v": lambda x, v, a: (
        (x - a**0.5 * (a**0.5 * x - (1 - a) ** 0.5 * v)) / (1 - a) ** 0.5
    ),
    "check_ema_update": lambda old, new, k, ema: old.lerp_(new, max(1 - ema, 9 / (10 + k))),
    "check_picture_weight": lambda a: torch.exp(a.log() - torch.log1p(-a)),
}
