"""Pages 06 and 06b."""

from itertools import product

import torch


def _mean_of_pairs(k):
    off = ~torch.eye(len(k), dtype=torch.bool)
    return k[off].mean()


def _mmd(x, y, kernel):
    return _mean_of_pairs(kernel(x, x)) + _mean_of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean()


def _squares(images):
    x = images.flatten(1)
    return (x[:, None, :] - x).pow(2).mean(-1)


def _others(images):
    return _squares(images) + torch.diag(torch.full((len(images),), torch.inf))


def _flips(d):
    return torch.tensor(
        [
            sum(s * x for s, x in zip(signs, d.tolist(), strict=True)) / len(d)
            for signs in product((-1, 1), repeat=len(d))
        ]
    )


def _error(d):
    return ((d - d.mean()).square().sum() / (len(d) - 1) / len(d)).sqrt()


WRONG = {
    "check_unbiased_distance": [
        (lambda x, y, k: k(x, x).mean() + k(y, y).mean() - 2 * k(x, y).mean(), "with itself, too"),
        (
            lambda x, y, k: (
                _mean_of_pairs(k(x, x)) + _mean_of_pairs(k(y, y)) - k(x, y).sum() / len(x) / len(y)
            ),
            "counts twice",
        ),
        (
            lambda x, y, k: (
                (k(x, x) - k(x, x).diag().diag()).mean()
                + (k(y, y) - k(y, y).diag().diag()).mean()
                - 2 * k(x, y).mean()
            ),
            "divided as if it were there",
        ),
        (
            lambda x, y, k: (
                k(x, x).sum() / len(x) / (len(x) - 1)
                + k(y, y).sum() / len(y) / (len(y) - 1)
                - 2 * k(x, y).mean()
            ),
            "the diagonal is still in the sum",
        ),
        (lambda x, y, k: _mmd(x, y, k).clamp(min=0) ** 0.5, "took a root at the end"),
        (lambda x, y, k: _mmd(x, y, k).sqrt(), "take no root of it"),
        (lambda x, y, k: torch.relu(_mmd(x, y, k)), "cut off what is below 0"),
        (lambda x, y, k: abs(_mmd(x, y, k)), "took away the sign"),
        (
            lambda x, y, k: 2 * k(x, y).mean() - _mean_of_pairs(k(x, x)) - _mean_of_pairs(k(y, y)),
            "upside down",
        ),
        (
            lambda x, y, k: _mean_of_pairs(k(x, x)) + _mean_of_pairs(k(y, y)),
            "only looked within",
        ),
        (lambda x, y, k: k(x, y), "shape is (9, 12)"),
        (lambda x, y, k: _mmd(x, y, k).item(), "return a tensor"),
    ],
    "check_nearest_other": [
        (lambda x: _squares(x).min(1).values.sqrt(), "finds itself"),
        (
            lambda x: torch.cdist(x.flatten(1), x.flatten(1)).fill_diagonal_(torch.inf).amin(1),
            "summed over the pixels",
        ),
        (lambda x: _others(x).min(1).values, "the squares are right"),
        (lambda x: _others(x).min(1).values * x[0].numel(), "sum of squares"),
        (lambda x: _squares(x).max(1).values ** 0.5, "the farthest one"),
        (lambda x: _others(x).min(1).indices, "the number of the nearest"),
        (lambda x: _others(x).min() ** 0.5, "shape is ()"),
        (
            lambda x: (
                (torch.cdist(x.flatten(1), x.flatten(1), p=1) / x[0].numel())
                .fill_diagonal_(torch.inf)
                .amin(1)
            ),
            "absolute differences",
        ),
        (lambda x: _squares(x).kthvalue(3, dim=1).values.sqrt(), "the second nearest"),
        (lambda x: _others(x), "shape is (7, 7)"),
    ],
    "check_paired_difference": [
        (
            lambda a, b: torch.stack(
                [(a - b).mean(), (a.var() / len(a) + b.var() / len(b)).sqrt()]
            ),
            "ignores the pairs",
        ),
        (lambda a, b: torch.stack([(a - b).mean(), (a - b).std()]), "of one difference"),
        (lambda a, b: torch.stack([(a - b).mean(), (a - b).std() / len(a)]), "divide by its root"),
        (
            lambda a, b: torch.stack(
                [(a - b).mean(), (a - b).var(unbiased=False).sqrt() / len(a) ** 0.5]
            ),
            "divide by N - 1",
        ),
        (lambda a, b: torch.stack([(b - a).mean(), _error(b - a)]), "the sign is wrong"),
        (
            lambda a, b: torch.stack([(a - b).abs().mean(), _error((a - b).abs())]),
            "absolute differences",
        ),
        (lambda a, b: torch.stack([(a - b).mean(), _error(a - b) ** 2]), "take its root"),
        (lambda a, b: ((a - b).mean(), _error(a - b)), "torch.stack"),
        (lambda a, b: (a - b).mean(), "shape is ()"),
    ],
    "check_sign_flip": [
        (lambda d: (_flips(d).abs() > d.mean().abs() + 1e-6).double().mean().item(), "exactly as"),
        (lambda d: (_flips(d) > d.mean() - 1e-6).double().mean().item(), "one side only"),
        (lambda d: (_flips(d).abs() < d.mean().abs() - 1e-6).double().mean().item(), "of smaller"),
        (lambda d: ((d > 0).sum() / len(d)).item(), "of positive differences"),
        (lambda d: (_flips(d).abs() > d.mean().abs() - 1e-6).sum().item(), "you counted;"),
    ],
}

RIGHT = {
    "check_unbiased_distance": _mmd,
    "check_paired_difference": lambda a, b: torch.stack([a.mean() - b.mean(), _error(b - a)]),
    "check_sign_flip": lambda d: (_flips(d).abs() > d.mean().abs() - 1e-6).double().mean().item(),
    "check_nearest_other": lambda x: _squares(x).kthvalue(2, dim=1).values.sqrt(),
}
