"""Exercises of page 06: is it any good?"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise

_random = torch.Generator().manual_seed(6)
_mixing = torch.randn(4, 4, generator=_random, dtype=torch.float64)
_a = torch.randn(9, 4, generator=_random, dtype=torch.float64) @ _mixing
_b = 0.7 * torch.randn(12, 4, generator=_random, dtype=torch.float64) + 0.5
_c = _a.flip(1) + 0.3
_images = torch.randn(7, 3, 4, 4, generator=_random, dtype=torch.float64)


def _gaussian(x: Tensor, y: Tensor) -> Tensor:
    """A kernel with which distances are above and below 0: (N, D), (M, D) -> (N, M)."""
    return (-torch.cdist(x, y).square() / 8).exp()


def _pairs(values: Tensor) -> Tensor:
    """The mean over all pairs of two different ones."""
    return (values.sum() - values.trace()) / (len(values) * (len(values) - 1))


def _mmd_of(within: Callable, across: float = 2.0) -> Callable:
    def distance(x: Tensor, y: Tensor, kernel: Callable) -> Tensor:
        return within(kernel(x, x)) + within(kernel(y, y)) - across * kernel(x, y).mean()

    return distance


def _without_diagonal_but_all(values: Tensor) -> Tensor:
    return (values.sum() - values.trace()) / len(values) ** 2


def _with_diagonal_but_few(values: Tensor) -> Tensor:
    return values.sum() / (len(values) * (len(values) - 1))


_mmd = _mmd_of(_pairs)
_kernel_distance = Exercise(
    answer=_mmd,
    mistakes=[
        (
            _mmd_of(torch.mean),
            "each point is paired with itself, too: leave out the diagonal of k(x, x) and of "
            "k(y, y).",
        ),
        (
            _mmd_of(_pairs, across=1.0),
            "the mean across the two sets counts twice: once for x with y, and once for y with x.",
        ),
        (
            _mmd_of(_without_diagonal_but_all),
            "you left the diagonal out, but divided as if it were there: only n (n - 1) pairs are "
            "left.",
        ),
        (
            _mmd_of(_with_diagonal_but_few),
            "you divided by n (n - 1), but the diagonal is still in the sum: take the trace out.",
        ),
        (
            lambda x, y, kernel: _mmd(x, y, kernel).clamp(min=0).sqrt(),
            "you took a root at the end: the square is what can be estimated without a bias, and "
            "it may be below 0.",
        ),
        (
            lambda x, y, kernel: _mmd(x, y, kernel).clamp(min=0),
            "you cut off what is below 0: then the mean over many draws of one kind is above 0.",
        ),
        (
            lambda x, y, kernel: _mmd(x, y, kernel).abs(),
            "you took away the sign: then the mean over many draws of one kind is above 0.",
        ),
        (
            lambda x, y, kernel: -_mmd(x, y, kernel),
            "the sign is upside down: likeness within the sets counts for the distance, likeness "
            "across against it.",
        ),
        (
            lambda x, y, kernel: _pairs(kernel(x, x)) + _pairs(kernel(y, y)),
            "you only looked within the sets; take twice the mean of k(x, y) off.",
        ),
    ],
    # Two that are of one kind come out below 0, where roots and signs show.
    cases=[(_a, _b, _gaussian), (_a[:5], _a[4:], _gaussian), (_b[:6], _b[6:], _gaussian)],
    if_nan="some of it is nan: the estimate can be below 0, so take no root of it.",
)


def _roots(product: Tensor) -> Tensor:
    """The trace of the root of a product of two covariances."""
    return torch.linalg.eigvals(product).real.clamp(min=0).sqrt().sum()


def _covariance_term(cov: Callable = lambda x: torch.cov(x.T), root=_roots, twice=2.0) -> Callable:
    def term(a: Tensor, b: Tensor) -> Tensor:
        in_a, in_b = cov(a), cov(b)
        return in_a.trace() + in_b.trace() - twice * root(in_a @ in_b)

    return term


_frechet_covariance = Exercise(
    answer=_covariance_term(),
    mistakes=[
        (
            _covariance_term(root=torch.trace),
            "the root is missing: you took off the trace of the product itself.",
        ),
        (
            _covariance_term(twice=1.0),
            "the root counts twice: as in (s - r)^2 = s^2 + r^2 - 2 s r.",
        ),
        (
            lambda a, b: (a.std(0) - b.std(0)).square().sum(),
            "you compared only the standard deviation of each number; the covariance also knows "
            "which numbers rise and fall together.",
        ),
        (
            _covariance_term(root=lambda product: product.clamp(min=0).sqrt().trace()),
            "you took the root of each entry; the root of a matrix is the matrix whose product "
            "with itself it is, and its trace is the sum of the roots of the eigenvalues.",
        ),
        (
            _covariance_term(cov=lambda x: torch.cov(x.T, correction=0)),
            "you divided by N; the unbiased covariance divides by N - 1, as torch.cov does.",
        ),
        (
            lambda a, b: _covariance_term()(a, b) + (a.mean(0) - b.mean(0)).square().sum(),
            "that is the whole Frechet distance; asked for is the part without the means.",
        ),
        (
            _covariance_term(root=lambda product: _roots(product).square()),
            "you took the root of the eigenvalues' sum, or squared it again: first the root of "
            "each, then the sum.",
        ),
        (
            _covariance_term(cov=lambda x: x.T @ x / (len(x) - 1)),
            "you forgot to take the means off: a covariance is about differences from the mean.",
        ),
        (
            lambda a, b: (torch.cov(a.T) - torch.cov(b.T)).trace(),
            "that is the difference of two traces, which is below 0 where b is wider than a.",
        ),
    ],
    cases=[(_a, _b), (_c, _a), (_b, _c)],
    if_nan=(
        "some of it is nan or complex: the product of two covariances has eigenvalues of 0 and "
        "more, but rounding can lead below; take `.real` and clamp before the root."
    ),
)


def _distances(images: Tensor) -> Tensor:
    """Mean square over the pixels, for all pairs, shape (N, N)."""
    return (images[:, None] - images[None]).square().flatten(2).mean(2)


def _others(images: Tensor) -> Tensor:
    """The same with infinity where an image meets itself."""
    return _distances(images).fill_diagonal_(torch.inf)


_nearest_other = Exercise(
    answer=lambda images: _others(images).amin(1).sqrt(),
    mistakes=[
        (
            lambda images: _distances(images).amin(1).sqrt(),
            "every image finds itself, at distance 0: fill the diagonal with infinity first.",
        ),
        (
            lambda images: (_others(images).amin(1) * images[0].numel()).sqrt(),
            "you summed over the pixels; take the mean, so that the distance does not grow with "
            "the size of the images.",
        ),
        (
            lambda images: _others(images).amin(1),
            "the squares are right; take the root, so that the distance is on the scale of the "
            "pixels.",
        ),
        (
            lambda images: _others(images).amin(1) * images[0].numel(),
            "that is the sum of squares: take the mean over the pixels, and then the root.",
        ),
        (
            lambda images: _distances(images).amax(1).sqrt(),
            "that is the farthest one: take the least distance.",
        ),
        (
            lambda images: _others(images).argmin(1),
            "that is the number of the nearest one; asked for is how far it is.",
        ),
        (
            lambda images: (
                (images[:, None] - images[None])
                .abs()
                .flatten(2)
                .mean(2)
                .fill_diagonal_(torch.inf)
                .amin(1)
            ),
            "you took the mean of the absolute differences; square them, and take the root of "
            "their mean.",
        ),
        (
            lambda images: _distances(images).sort(1).values[:, 2].sqrt(),
            "that is the second nearest: sorted by distance, 0 is the image itself, and 1 its "
            "nearest other.",
        ),
    ],
    cases=[(_images,), (0.4 * _images[2:].flip(1) + 0.2,)],
    if_nan="some of it is nan: squares before the mean, and the root only at the end.",
)


def check_unbiased_distance(
    function: Callable[[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]], Tensor],
) -> None:
    """unbiased_distance(x, y, kernel) -> the squared distance, shape ()."""
    print(_kernel_distance.judge(function))


def check_covariance_term(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """covariance_term(a, b) -> the Frechet distance without the part of the means, shape ()."""
    print(_frechet_covariance.judge(function))


def check_nearest_other(function: Callable[[Tensor], Tensor]) -> None:
    """nearest_other(images) -> how far each image's nearest other is, shape (N,)."""
    print(_nearest_other.judge(function))
