"""Page 06."""

import torch


def _mean_of_pairs(k):
    off = ~torch.eye(len(k), dtype=torch.bool)
    return k[off].mean()


def _mmd(x, y, kernel):
    return _mean_of_pairs(kernel(x, x)) + _mean_of_pairs(kernel(y, y)) - 2 * kernel(x, y).mean()


def _covariance(x, divisor=None):
    centred = x - x.mean(0)
    return centred.T @ centred / (divisor or len(x) - 1)


def _matrix_root(c):
    values, vectors = torch.linalg.eigh(c)
    return vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T


def _root_trace(c, d):
    r = _matrix_root(c)
    return _matrix_root(r @ d @ r).trace()


def _covariance_term(a, b):
    c, d = _covariance(a), _covariance(b)
    return c.trace() + d.trace() - 2 * _root_trace(c, d)


def _squares(images):
    x = images.flatten(1)
    return (x[:, None, :] - x).pow(2).mean(-1)


def _others(images):
    return _squares(images) + torch.diag(torch.full((len(images),), torch.inf))


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
    "check_covariance_term": [
        (
            lambda a, b: (
                _covariance(a).trace()
                + _covariance(b).trace()
                - 2 * (_covariance(a) * _covariance(b)).sum()
            ),
            "the root is missing",
        ),
        (
            lambda a, b: (
                _covariance(a).trace()
                + _covariance(b).trace()
                - _root_trace(_covariance(a), _covariance(b))
            ),
            "the root counts twice",
        ),
        (lambda a, b: ((a.var(0) ** 0.5 - b.var(0) ** 0.5) ** 2).sum(), "standard deviation of"),
        (
            lambda a, b: (
                _covariance(a).trace()
                + _covariance(b).trace()
                - 2 * (_covariance(a) @ _covariance(b)).diag().clamp(min=0).sqrt().sum()
            ),
            "the root of each entry",
        ),
        (
            lambda a, b: (
                (c := _covariance(a, len(a))).trace()
                + (d := _covariance(b, len(b))).trace()
                - 2 * _root_trace(c, d)
            ),
            "you divided by N;",
        ),
        (
            lambda a, b: (a.mean(0) - b.mean(0)).norm() ** 2 + _covariance_term(a, b),
            "the whole Frechet distance",
        ),
        (
            lambda a, b: (
                _covariance(a).trace()
                + _covariance(b).trace()
                - 2 * _root_trace(_covariance(a), _covariance(b)) ** 2
            ),
            "or squared it again",
        ),
        (
            lambda a, b: (
                (c := a.T @ a / (len(a) - 1)).trace()
                + (d := b.T @ b / (len(b) - 1)).trace()
                - 2 * _root_trace(c, d)
            ),
            "take the means off",
        ),
        (lambda a, b: a.var(0).sum() - b.var(0).sum(), "difference of two traces"),
        (lambda a, b: _covariance(a) + _covariance(b), "shape is (4, 4)"),
        (lambda a, b: torch.linalg.eigvals(_covariance(a) @ -_covariance(b)).sqrt().sum(), "nan"),
        (lambda a, b: _covariance(a.T) @ _covariance(b.T), "RuntimeError"),
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
}

RIGHT = {
    "check_unbiased_distance": _mmd,
    "check_covariance_term": _covariance_term,
    "check_nearest_other": lambda x: _squares(x).kthvalue(2, dim=1).values.sqrt(),
}
