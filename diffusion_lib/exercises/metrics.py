"""Exercises of page 06: is it any good? And of page 06b: ablations."""

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from diffusion_lib.exercises.judge import Exercise, say

_random = torch.Generator().manual_seed(6)
_mixing = torch.randn(4, 4, generator=_random, dtype=torch.float64)
_a = torch.randn(9, 4, generator=_random, dtype=torch.float64) @ _mixing
_b = 0.7 * torch.randn(12, 4, generator=_random, dtype=torch.float64) + 0.5
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
            "the sign is upside down: similarity within the sets adds to the distance, similarity "
            "across reduces it.",
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


def _mean_and_error(numbers: Tensor) -> Tensor:
    return torch.stack([numbers.mean(), numbers.std() / len(numbers) ** 0.5])


def _unpaired(a: Tensor, b: Tensor) -> Tensor:
    error = ((a.var() + b.var()) / len(a)).sqrt()
    return torch.stack([a.mean() - b.mean(), error])


_scores = torch.tensor([1.9, 1.4, 2.2, 1.7], dtype=torch.float64)
_shifts = torch.tensor([0.3, -0.1, 0.2, 0.4], dtype=torch.float64)
_paired_difference = Exercise(
    answer=lambda a, b: _mean_and_error(a - b),
    mistakes=[
        (
            _unpaired,
            "you added the variances of both; that ignores the pairs. Take the difference for each "
            "seed first, then its standard deviation.",
        ),
        (
            lambda a, b: torch.stack([(a - b).mean(), (a - b).std()]),
            "the second number is the standard deviation of one difference; divide by the root of "
            "their number for the standard error of the mean.",
        ),
        (
            lambda a, b: torch.stack([(a - b).mean(), (a - b).std() / len(a)]),
            "you divided by the number of seeds; divide by its root.",
        ),
        (
            lambda a, b: torch.stack([(a - b).mean(), (a - b).std(correction=0) / len(a) ** 0.5]),
            "the standard deviation must divide by N - 1, as torch.std does by itself.",
        ),
        (
            lambda a, b: _mean_and_error(b - a),
            "the sign is wrong: asked for is a - b.",
        ),
        (
            lambda a, b: _mean_and_error((a - b).abs()),
            "you took absolute differences; then two equal choices never have the difference 0.",
        ),
        (
            lambda a, b: torch.stack([(a - b).mean(), (a - b).var() / len(a)]),
            "the second number is the square of the standard error: take its root.",
        ),
    ],
    cases=[(_scores + _shifts, _scores), (_scores[:3], _scores[:3].flip(0) + 0.1)],
    expects="a tensor of two numbers, such as torch.stack([mean, error])",
    if_nan="some of it is nan: a standard deviation needs the differences of all seeds.",
)


def _sign_flips(differences: Tensor) -> Tensor:
    """The mean for each choice of signs, (2^N,)."""
    signs = torch.tensor(list(product([1.0, -1.0], repeat=len(differences))))
    return signs.to(differences) @ differences / len(differences)


def _share(compare: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], float]:
    """The share of sign choices for which compare(mean with these signs, observed mean)."""

    def share(differences: Tensor) -> float:
        return compare(_sign_flips(differences), differences.mean()).double().mean().item()

    return share


_sign_flip = Exercise(
    answer=_share(lambda means, seen: means.abs() >= seen.abs() - 1e-9),
    mistakes=[
        (
            _share(lambda means, seen: means.abs() > seen.abs() + 1e-9),
            "you left out the means that are exactly as large as the observed one. Count them; "
            "rounding can hide them, so subtract 1e-9 from the observed mean before comparing.",
        ),
        (
            _share(lambda means, seen: means >= seen - 1e-9),
            "you counted one side only: a large difference of either sign counts, so compare "
            "absolute values.",
        ),
        (
            _share(lambda means, seen: means <= seen + 1e-9),
            "you counted one side only: a large difference of either sign counts, so compare "
            "absolute values.",
        ),
        (
            _share(lambda means, seen: means.abs() < seen.abs() - 1e-9),
            "that is the share of smaller means; asked for is the share that is at least as large.",
        ),
        (
            lambda differences: (differences > 0).double().mean().item(),
            "that is the share of positive differences. Try all 2^N choices of signs.",
        ),
        (
            lambda differences: (
                (_sign_flips(differences).abs() >= differences.mean().abs() - 1e-9)
                .double()
                .sum()
                .item()
            ),
            "you counted; divide by the number of sign choices, 2^N.",
        ),
    ],
    cases=[
        (torch.tensor([0.32, 0.4, 0.1], dtype=torch.float64),),
        (torch.tensor([0.3, -0.2, 0.4, 0.5, 0.1], dtype=torch.float64),),
        (torch.tensor([-0.3, -0.2, 0.15, -0.5], dtype=torch.float64),),
    ],
    expects="a number",
)


def check_unbiased_distance(
    function: Callable[[Tensor, Tensor, Callable[[Tensor, Tensor], Tensor]], Tensor],
) -> None:
    """unbiased_distance(x, y, kernel) -> the squared distance, shape ()."""
    say(_kernel_distance.judge(function), function)


def check_nearest_other(function: Callable[[Tensor], Tensor]) -> None:
    """nearest_other(images) -> how far each image's nearest other is, shape (N,)."""
    say(_nearest_other.judge(function), function)


def check_paired_difference(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    """paired_difference(a, b) -> mean of a - b over the seeds, its standard error, shape (2,)."""
    say(_paired_difference.judge(function), function)


def check_sign_flip(function: Callable[[Tensor], float]) -> None:
    """sign_flip(differences) -> share of sign choices with a mean at least as large, a number."""
    say(_sign_flip.judge(function), function)
