"""Pages 05 and 05b."""

import torch


def _leap(x, e, here, there):
    return there**0.5 * (x - (1 - here) ** 0.5 * e) / here**0.5 + (1 - there) ** 0.5 * e


def _step(x, x0, here, there):
    return there**0.5 * x0 + ((1 - there) / (1 - here)) ** 0.5 * (x - here**0.5 * x0)


def _largest(x0, part):
    return torch.quantile(x0.abs().flatten(1), part, dim=1)[:, None, None, None]


def _angle(a, b):
    return torch.arccos(torch.dot(a.flatten(), b.flatten()) / a.norm() / b.norm())


def _arc(a, b, share):
    angle = _angle(a, b)
    return (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()


def _stretched(a, b, share):
    straight = torch.lerp(a, b, share)
    return straight / straight.norm() * torch.lerp(a.norm(), b.norm(), share)


def _walk(x, guess, bars, timesteps, end=-1, noise=None, stop=0):
    timesteps = [*timesteps, end]
    for i in range(len(timesteps) - 1 - stop):
        here, there = bars[timesteps[i]], bars[timesteps[i + 1]]
        x0 = guess(x, timesteps[i])
        epsilon = (x - here.sqrt() * x0) / (1 - here).sqrt() if noise is None else noise
        x = there.sqrt() * x0 + (1 - there).sqrt() * epsilon
    return x


def _start(sketch, noise, bar):
    return bar**0.5 * sketch + (1 - bar) ** 0.5 * noise


WRONG = {
    "check_ddim_step": [
        (lambda x, x0, h, t: x0, "one big step"),
        (lambda x, x0, h, t: t**0.5 * x0 + (1 - t) ** 0.5 * x, "added x_t itself"),
        (
            lambda x, x0, h, t: t**0.5 * x0 + (1 - t) ** 0.5 * (x - h**0.5 * x0),
            "not scaled to standard deviation 1",
        ),
        (
            lambda x, x0, h, t: t**0.5 * x0 + ((1 - t) / (1 - h)) ** 0.5 * (x - x0),
            "subtracted all of x0",
        ),
        (lambda x, x0, h, t: t**0.5 * x0 + x - h**0.5 * x0, "as strong as it was at t"),
        (
            lambda x, x0, h, t: x0 + ((1 - t) / (1 - h)) ** 0.5 * (x - h**0.5 * x0),
            "the prediction is not scaled",
        ),
        (lambda x, x0, h, t: t * x0 + (1 - t) / (1 - h) * (x - h * x0), "variances as factors"),
        (lambda x, x0, h, t: x, "for the first case"),
    ],
    "check_dynamic_clip": [
        (lambda x0, part: x0.clamp(-1, 1), "static clipping"),
        (lambda x0, part: (x0 / _largest(x0, part)).clamp(-1, 1), "is stretched"),
        (
            lambda x0, part: (x0 / x0.abs().quantile(part).clamp(min=1)).clamp(-1, 1),
            "each image needs its own",
        ),
        (
            lambda x0, part: (
                x0 / x0.flatten(1).quantile(part, 1).clamp(min=1)[:, None, None, None]
            ).clamp(-1, 1),
            "forgot the absolute value",
        ),
        (lambda x0, part: x0 / _largest(x0, part).clamp(min=1), "still out of range: clamp"),
        (
            lambda x0, part: torch.maximum(
                torch.minimum(x0, _largest(x0, part).clamp(min=1)),
                -_largest(x0, part).clamp(min=1),
            ),
            "it is still out of range: divide",
        ),
        (lambda x0, part: x0 / _largest(x0, 1.0).clamp(min=1), "by the largest pixel"),
        (lambda x0, part: _largest(x0, part), "The shape is"),
    ],
    "check_leap": [
        (lambda x, e, h, t: t**0.5 * x + (1 - t) ** 0.5 * e, "took x for the clean image"),
        (
            lambda x, e, h, t: t**0.5 * (x - (1 - h) ** 0.5 * e) + (1 - t) ** 0.5 * e,
            "still scaled",
        ),
        (
            lambda x, e, h, t: (t / h) ** 0.5 * (x - (1 - h) ** 0.5 * e) + (1 - h) ** 0.5 * e,
            "as strong as it was",
        ),
        (lambda x, e, h, t: _leap(x, e, t, h), "changed places"),
        (lambda x, e, h, t: (x - (1 - h) ** 0.5 * e) / h**0.5, "that is the clean image"),
        (lambda x, e, h, t: t / h * (x - (1 - h) * e) + (1 - t) * e, "needs a root"),
        (
            lambda x, e, h, t: (t / h) ** 0.5 * x + (1 - t / h) ** 0.5 * e,
            "root of a negative number",
        ),
        (lambda x, e, h, t: x, "for the first case"),
        (lambda x, e, h, t: None, "returns None"),
    ],
    "check_slerp": [
        (lambda a, b, share: a + share * (b - a), "the straight line, which cuts"),
        (lambda a, b, share: _arc(b, a, share), "share = 0 has to give a"),
        (lambda a, b, share: _arc(a, b, share) * _angle(a, b).sin(), "the length is not"),
        (
            lambda a, b, share: (
                (((1 - share) * _angle(a, b)).cos() * a + (share * _angle(a, b)).cos() * b)
                / _angle(a, b).sin()
            ),
            "not cosines",
        ),
        (lambda a, b, share: (1 - share) ** 0.5 * a + share**0.5 * b, "roots keep the length"),
        (_stretched, "you stretched the straight line"),
        (
            lambda a, b, share: (
                torch.sin((1 - share) * torch.acos((a * b).sum())) * a
                + torch.sin(share * torch.acos((a * b).sum())) * b
            ),
            "divide the product of a and b by both lengths",
        ),
        (lambda a, b, share: share, "return a tensor"),
    ],
    "check_redraw": [
        (lambda s, n, g, bars, ts: _walk(n, g, bars, ts), "start from pure noise"),
        (lambda s, n, g, bars, ts: _walk(s, g, bars, ts), "from the clean sketch"),
        (
            lambda s, n, g, bars, ts: _walk(_start(s, n, bars[-2]), g, bars, ts),
            "to the last timestep of the schedule",
        ),
        (
            lambda s, n, g, bars, ts: _walk(s + (1 - bars[ts[0]]).sqrt() * n, g, bars, ts),
            "did not multiply the sketch",
        ),
        (
            lambda s, n, g, bars, ts: _walk(torch.lerp(n, s, bars[ts[0]]), g, bars, ts),
            "noised the sketch with variances",
        ),
        (
            lambda s, n, g, bars, ts: _walk(_start(s, n, bars[ts[0]]), g, bars, ts, stop=1),
            "the last step is missing",
        ),
        (
            lambda s, n, g, bars, ts: _walk(_start(s, n, bars[ts[0]]), g, bars, ts, end=0),
            "a trace of noise is left",
        ),
        (
            lambda s, n, g, bars, ts: g(_start(s, n, bars[ts[0]]), ts[0]),
            "that is the first prediction",
        ),
        (
            lambda s, n, g, bars, ts: _walk(_start(s, n, bars[ts[0]]), g, bars, ts, noise=n),
            "the first noise back on",
        ),
        (lambda s, n, g, bars, ts: s, "for the first case"),
        (lambda s, n, g, bars, ts: _walk(_start(s, n, bars[ts]), g, bars, ts), "RuntimeError"),
    ],
    "check_paste_known": [
        (
            lambda x, k, m, bar, n: torch.where(m.bool(), x, _start(k, n, bar)),
            "upside down",
        ),
        (lambda x, k, m, bar, n: torch.where(m.bool(), k, x), "pasted the clean image"),
        (
            lambda x, k, m, bar, n: torch.where(m.bool(), k + (1 - bar) ** 0.5 * n, x),
            "without multiplying it",
        ),
        (
            lambda x, k, m, bar, n: torch.where(m.bool(), bar * k + (1 - bar) * n, x),
            "with variances as factors",
        ),
        (lambda x, k, m, bar, n: x + m * _start(k, n, bar), "to x instead of replacing"),
        (
            lambda x, k, m, bar, n: _start(torch.where(m.bool(), k, x), n, bar),
            "noised x once more",
        ),
        (lambda x, k, m, bar, n: m * _start(k, n, bar), "the unknown part is gone"),
        (lambda x, k, m, bar, n: _start(k, n, bar)[:1], "shape is (1, 3, 8, 8)"),
    ],
}

RIGHT = {
    "check_ddim_step": _step,
    "check_dynamic_clip": lambda x0, part: (
        x0 / torch.maximum(_largest(x0, part), torch.ones(()))
    ).clamp(-1, 1),
    "check_leap": lambda x, e, h, t: (
        (t / h) ** 0.5 * x + ((1 - t) ** 0.5 - (t * (1 - h) / h) ** 0.5) * e
    ),
    "check_slerp": _arc,
    "check_redraw": lambda s, n, g, bars, ts: _walk(_start(s, n, bars[ts[0]]), g, bars, ts),
    "check_paste_known": lambda x, k, m, bar, n: torch.where(m.bool(), _start(k, n, bar), x),
}
