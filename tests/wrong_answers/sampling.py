"""Page 05."""

import torch


def _leap(x, e, here, there):
    return there**0.5 * (x - (1 - here) ** 0.5 * e) / here**0.5 + (1 - there) ** 0.5 * e


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
    "check_leap": [
        (lambda x, e, h, t: t**0.5 * x + (1 - t) ** 0.5 * e, "took x for the clean picture"),
        (
            lambda x, e, h, t: t**0.5 * (x - (1 - h) ** 0.5 * e) + (1 - t) ** 0.5 * e,
            "still faded",
        ),
        (
            lambda x, e, h, t: (t / h) ** 0.5 * (x - (1 - h) ** 0.5 * e) + (1 - h) ** 0.5 * e,
            "as strong as it was",
        ),
        (lambda x, e, h, t: _leap(x, e, t, h), "changed places"),
        (lambda x, e, h, t: (x - (1 - h) ** 0.5 * e) / h**0.5, "that is the clean picture"),
        (lambda x, e, h, t: t / h * (x - (1 - h) * e) + (1 - t) * e, "wants a root"),
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
            "did not fade the sketch",
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
            "that is the first guess",
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
        (lambda x, k, m, bar, n: torch.where(m.bool(), k, x), "pasted the clean picture"),
        (
            lambda x, k, m, bar, n: torch.where(m.bool(), k + (1 - bar) ** 0.5 * n, x),
            "without fading it",
        ),
        (
            lambda x, k, m, bar, n: torch.where(m.bool(), bar * k + (1 - bar) * n, x),
            "with variances for factors",
        ),
        (lambda x, k, m, bar, n: x + m * _start(k, n, bar), "over x instead of replacing"),
        (
            lambda x, k, m, bar, n: _start(torch.where(m.bool(), k, x), n, bar),
            "noised x once more",
        ),
        (lambda x, k, m, bar, n: m * _start(k, n, bar), "the unknown part is gone"),
        (lambda x, k, m, bar, n: _start(k, n, bar)[:1], "shape is (1, 3, 8, 8)"),
    ],
}

RIGHT = {
    "check_leap": lambda x, e, h, t: (
        (t / h) ** 0.5 * x + ((1 - t) ** 0.5 - (t * (1 - h) / h) ** 0.5) * e
    ),
    "check_slerp": _arc,
    "check_redraw": lambda s, n, g, bars, ts: _walk(_start(s, n, bars[ts[0]]), g, bars, ts),
    "check_paste_known": lambda x, k, m, bar, n: torch.where(m.bool(), _start(k, n, bar), x),
}
