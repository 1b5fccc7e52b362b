"""Pages 04 and 04b."""

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


def decay(k, ema):
    return min(ema, (1 + k) / (10 + k)) if k else 0.0


def seeded():
    return torch.Generator().manual_seed(1)


def loop(
    order="zero_grad backward step",
    x_t=lambda x, a, e: a**0.5 * x + (1 - a) ** 0.5 * e,
    times=lambda T, x: torch.randint(T, x.shape[:1]),
    draw=torch.randn_like,
    score=lambda out, x, e: F.mse_loss(out, e),
    keep=lambda loss: loss.item(),
    result=lambda losses: losses,
    other_noise=False,
    more=0,
):
    """A training loop, right but for what is given."""

    def training_loop(network, optimizer, x0, alpha_bars, steps):
        losses = []
        for _ in range(steps + more):
            t, noise = times(len(alpha_bars), x0), draw(x0)
            output = network(x_t(x0, alpha_bars[t].view(-1, 1), noise), t)
            loss = score(output, x0, draw(x0) if other_noise else noise)
            does = dict(backward=loss.backward, zero_grad=optimizer.zero_grad, step=optimizer.step)
            for name in order.split():
                does[name]()
            losses.append(keep(loss))
        return result(losses)

    return training_loop


WRONG = {
    "check_simple_loss": [
        (lambda f, x, t, e, bars: F.mse_loss(f(without_roots(x, t, e, bars), t), e), "their roots"),
        (lambda f, x, t, e, bars: F.mse_loss(f(x, t), e), "clean image"),
        (lambda f, x, t, e, bars: F.mse_loss(f(x + e, t), e), "full strength"),
        (lambda f, x, t, e, bars: F.mse_loss(f(x_t(x, t, e, bars), t), x), "with the image"),
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
        (lambda x, v, a: v / a**0.5, "without the image in v"),
        (lambda x, v, a: x, "for the first case"),
    ],
    "check_ema_update": [
        (lambda old, new, k, ema: ema * old + (1 - ema) * new, "no warm-up"),
        (lambda old, new, k, ema: torch.lerp(new, old, min(ema, (1 + k) / (10 + k))), "a copy"),
        (lambda old, new, k, ema: torch.lerp(new, old, (1 + k) / (10 + k) * (k > 0)), "stop at"),
        (lambda old, new, k, ema: torch.lerp(new, old, max(ema, decay(k, 1)) * (k > 0)), "larger"),
        (lambda old, new, k, ema: torch.lerp(old, new, decay(k, ema)), "roles are swapped"),
        (lambda old, new, k, ema: torch.lerp(old, new, 0.5), "plain mean"),
        (lambda old, new, k, ema: old + (1 - decay(k, ema)) * new, "grows and grows"),
        (lambda old, new, k, ema: old, "for the first case"),
        (lambda old, new, k, ema: None, "returns None"),
    ],
    "check_training_loop": [
        (loop(x_t=lambda x, a, e: x), "clean points"),
        (loop(x_t=lambda x, a, e: a * x + (1 - a) * e), "their roots"),
        (loop(x_t=lambda x, a, e: x + e), "full strength"),
        (loop(x_t=lambda x, a, e: a**0.5 * x), "not made as in eq. 4"),
        (loop(draw=torch.rand_like), "uniform"),
        (loop(draw=lambda x: torch.randn(x.shape, generator=seeded())), "noise is the same"),
        (loop(other_noise=True), "does not belong"),
        (loop(times=lambda T, x: torch.randint(T, (1,)).expand(len(x))), "the same t"),
        (loop(times=lambda T, x: torch.randint(T, (1,))), "shape (1,)"),
        (loop(times=lambda T, x: torch.randint(T - 40, x.shape[:1])), "never drawn"),
        (loop(times=lambda T, x: torch.arange(len(x)) % T), "timesteps are the same"),
        (loop(score=lambda out, x, e: F.mse_loss(out, x)), "compared with x0"),
        (loop(score=lambda out, x, e: F.mse_loss(out, e, reduction="sum")), "is a sum"),
        (loop(score=lambda out, x, e: F.l1_loss(out, e)), "absolute values"),
        (loop("backward step"), "zero_grad() is missing"),
        (loop("zero_grad backward"), "step() is never called"),
        (loop("zero_grad step"), "gradient is 0"),
        (loop(keep=lambda loss: loss), "their graphs"),
        (loop(result=lambda losses: losses[:1]), "returns 1 losses"),
        (loop(result=lambda losses: None), "returns None"),
        (loop(more=1), "called 7 times"),
        (loop(times=lambda T, x: x / 0 + "a"), "It stops with TypeError"),
    ],
    "check_mean_from_score": [
        (lambda x, s, a: (x - (1 - a) * s) / a**0.5, "the sign"),
        (lambda x, s, a: x + (1 - a) * s, "left out the division"),
        (lambda x, s, a: (x + (1 - a) * s) / a, "divided by alpha_t"),
        (lambda x, s, a: (x + (1 - a) ** 0.5 * s) / a**0.5, "root of beta_t"),
        (lambda x, s, a: (x + a * s) / a**0.5, "multiplied the score by alpha_t"),
        (lambda x, s, a: s, "for the first case"),
    ],
    "check_picture_weight": [
        (lambda a: 1 / a - 1, "upside down"),
        (lambda a: (a / (1 - a)) ** 0.5, "squares them"),
        (lambda a: (1 / a - 1) ** 0.5, "turn it around"),
        (lambda a: 1 / (1 - a), "loss of v"),
        (lambda a: 1 / a, "solve eq. 4 for the noise"),
        (lambda a: a, "its own coefficient"),
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
    "check_ema_update": lambda old, new, k, ema: old.lerp_(new, 1 - decay(k, ema)),
    "check_training_loop": loop("backward step zero_grad"),
    "check_mean_from_score": lambda x, s, a: a**-0.5 * x + (1 - a) * a**-0.5 * s,
    "check_picture_weight": lambda a: torch.exp(a.log() - torch.log1p(-a)),
}
