"""How good are samples? Distances between sets of images, copies, and the loss by timestep.

A distance has a meaning only beside others made with the same features and as many samples.
"""

import statistics
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.features import FeatureStatistics
from diffusion_lib.images.pixels import to_images
from diffusion_lib.neighbors import Nearest, nearest


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Between two Gaussians with these means and covariances (Heusel et al. 2017, arXiv
    1706.08500, eq. 6):

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    The estimate is biased upwards, and falls with the number of samples: compare only at the same
    number.

    Raises:
        InputError: fewer than two samples, or features of two kinds.
    """
    if min(a.count, b.count) < 2:
        raise InputError("a Frechet distance needs at least two images on either side")
    require_same_width(a.mean, b.mean)
    # C_a C_b has the eigenvalues of the symmetric R C_b R with R = C_a^(1/2).
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    traces = a.covariance.trace() + b.covariance.trace()
    distance = (a.mean - b.mean).square().sum() + traces - 2 * overlap
    return max(0.0, distance.item())  # below 0 only by rounding


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 50, subset_size: int = 500, seed: int = 0
) -> "KernelDistance":
    """Unbiased squared maximum mean discrepancy (Binkowski et al. 2018, arXiv 1801.01401, eq. 4),
    with the kernel k(x, y) = (x . y / D + 1)^3, as a mean over random subsets.

        mean of k(a, a') over a != a'  +  mean of k(b, b') over b != b'  -  2 mean of k(a, b)

    Its mean over draws does not depend on the number of samples. Where both sets come from one
    distribution, that mean is 0; but the estimates are skewed to the right, so they are below 0
    more often than not. The standard deviation is that between subsets, no standard error of the
    mean, and means something only if subsets are smaller than the sets.

    Args:
        a, b: features, shapes (N, D) and (M, D).

    Raises:
        InputError: fewer than two samples, or features of two kinds.
    """
    size = min(subset_size, len(a), len(b))
    if size < 2:
        raise InputError("a kernel distance needs at least two images on either side")
    require_same_width(a, b)
    generator = torch.Generator().manual_seed(seed)

    def some(features: Tensor) -> Tensor:
        return features[torch.randperm(len(features), generator=generator)[:size]].double()

    estimates = []
    for _ in range(subsets):
        x, y = some(a), some(b)
        within = [(k.sum() - k.trace()) / (size * (size - 1)) for k in (kernel(x, x), kernel(y, y))]
        estimates.append((within[0] + within[1] - 2 * kernel(x, y).mean()).item())
    std = statistics.stdev(estimates) if subsets > 1 else 0.0
    return KernelDistance(statistics.fmean(estimates), std)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / D + 1)^3 for all pairs. (N, D), (M, D) -> (N, M)"""
    return (x @ y.T / x.shape[1] + 1) ** 3


def precision_recall(
    real: Tensor, fake: Tensor, k: int = 3, chunk_size: int = 1000
) -> "PrecisionRecall":
    """Are samples like real images, and are there samples like each of these? (Kynkaanniemi et al.
    2019, arXiv 1904.06991, eq. 1 and 2)

    The region of each set is estimated as the union of balls around its points that just reach
    their k-th nearest neighbor. Precision is the fraction of fakes in the region of the reals,
    recall the fraction of reals in that of the fakes. Both depend on how many there are: compare
    only at the same numbers.

    Args:
        real, fake: features, shapes (N, D) and (M, D).
        chunk_size: rows compared with all others at a time.

    Raises:
        InputError: not more than k samples on either side, or features of two kinds.
    """
    if k < 1 or min(len(real), len(fake)) <= k:
        raise InputError(
            f"precision and recall with k = {k} need k of at least 1 and more than k images on "
            f"either side, not {len(real)} and {len(fake)}"
        )
    require_same_width(real, fake)

    def distances(x: Tensor, y: Tensor) -> Tensor:
        # in float64: a matrix product finds distances as differences of large numbers
        return torch.cdist(x.double(), y.double())

    def radii(points: Tensor) -> Tensor:  # (N,); each point's nearest is itself, hence k + 1
        chunks = points.split(chunk_size)
        return torch.cat([distances(some, points).kthvalue(k + 1).values for some in chunks])

    def fraction_within(points: Tensor, region: Tensor) -> float:
        reach = radii(region)
        chunks = points.split(chunk_size)
        return sum(
            (distances(some, region) <= reach).any(dim=1).sum().item() for some in chunks
        ) / len(points)

    return PrecisionRecall(fraction_within(fake, real), fraction_within(real, fake))


# --------------------------------------------------------------------------------------------------
# Also here: what these return, all distances at once, and features that do not fit


class KernelDistance(NamedTuple):
    """mean: the estimate. std: standard deviation between the subsets."""

    mean: float
    std: float


class PrecisionRecall(NamedTuple):
    """precision: fraction of fakes that could be real. recall: of reals that could be fakes."""

    precision: float
    recall: float


def compare(
    samples: FeatureStatistics, real: FeatureStatistics, subset_size: int = 500
) -> dict[str, float]:
    """Every distance between samples and real images, by its name."""
    mmd = kernel_distance(samples.rows, real.rows, subset_size=subset_size)
    precision, recall = precision_recall(real.rows, samples.rows)
    return {
        "frechet_distance": frechet_distance(samples, real),
        "kernel_distance": mmd.mean,
        "kernel_std": mmd.std,
        "precision": precision,
        "recall": recall,
    }


def require_same_width(a: Tensor, b: Tensor) -> None:
    """Raise InputError unless both have as many features an image."""
    if a.shape[-1] != b.shape[-1]:
        raise InputError(
            f"features of one kind have one width, but these have {a.shape[-1]} and {b.shape[-1]}"
        )


# --------------------------------------------------------------------------------------------------
# Also here: copies of training images


class Memorization(NamedTuple):
    """Are samples nearer to the training images than real images are that were not trained on?

    samples: median distance of a sample to the nearest training image.
    held_out: that of a held-out image.
    copies: fraction of samples that are at most as far as the nearest 1% of held-out images. About
        0.01 if the model has memorized nothing.
    singled_out: fraction of samples that are less than half as far from one training image as from
        any other. About 0 if the model has memorized nothing; it misses copies of images that the
        training set has more than once.
    """

    samples: float
    held_out: float
    copies: float
    singled_out: float


def memorization(
    samples: Tensor,
    training: Tensor,
    held_out: Tensor | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Memorization:
    """Compare distances to the nearest training image (see `nearest`): of samples, and of real
    images that the model has not seen.

    Args:
        samples, training, held_out: uint8, or floats in [-1, 1], shape (N, C, H, W). Without
            held-out images, training images stand for them, each against all others; at most
            10,000 of them, chosen at random.

    Raises:
        InputError: no images, images of two shapes, or one training image and none held out.
    """
    ours = nearest(samples, training, device=device)
    if held_out is not None:
        theirs = nearest(held_out, training, device=device).distance
    else:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(training), generator=generator)[:10_000]
        theirs = nearest(training[chosen], training, chosen, device).distance
    copies = (ours.distance <= theirs.quantile(0.01)).double().mean().item()
    medians = ours.distance.median().item(), theirs.median().item()
    return Memorization(*medians, copies, singled_out(ours).double().mean().item())


def singled_out(found: Nearest) -> Tensor:
    """Which images are less than half as far from their nearest neighbor as from the next one."""
    return found.distance < 0.5 * found.second


# --------------------------------------------------------------------------------------------------
# Also here: where in the timesteps a model is good


class TimestepLoss(NamedTuple):
    """The mean loss at timesteps first..last, both included."""

    first: int
    last: int
    loss: float


@torch.no_grad()
def loss_by_timestep(
    diffusion: GaussianDiffusion,
    images: Tensor,
    bins: int = 10,
    batch_size: int = 64,
    seed: int = 0,
) -> list[TimestepLoss]:
    """The loss in equal ranges of the timesteps, from least noise to most: where is a model good?

    Every image is noised once for each bin, at a timestep and with a noise that depend only on the
    seed and the number of the image: so two models with one prediction and schedule compare.

    Args:
        diffusion: a model; the loss is of what it predicts, see `GaussianDiffusion.loss`.
        images: uint8, or floats in [-1, 1], (N, ...).
        bins: how many ranges, 1 to T.

    Raises:
        InputError: no images, or more bins than timesteps.
    """
    timesteps = diffusion.schedule.timesteps
    if not 1 <= bins <= timesteps:
        raise InputError(f"bins must be 1 to {timesteps}, the timesteps, not {bins}")
    if len(images) == 0:
        raise InputError("the loss by timestep needs at least one image")
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1, not {batch_size}")
    was_training = diffusion.training
    diffusion.eval()
    generator = torch.Generator().manual_seed(seed)
    edges = [timesteps * number // bins for number in range(bins + 1)]
    sums = [0.0] * bins
    for first in range(0, len(images), batch_size):
        x0 = to_images(images[first : first + batch_size]).to(diffusion.device)
        draws = [draw_noise(x0, bins, generator) for _ in range(len(x0))]
        noise = torch.stack([noise for noise, _ in draws]).to(x0)  # (n, bins, ...)
        places = torch.stack([place for _, place in draws]).to(x0.device)  # (n, bins), 0..1
        for number, (start, end) in enumerate(pairwise(edges)):
            t = start + (places[:, number] * (end - start)).long()  # (n,)
            sums[number] += diffusion.loss(x0, t, noise[:, number]).item() * len(x0)
    diffusion.train(was_training)
    return [
        TimestepLoss(start, end - 1, total / len(images))
        for (start, end), total in zip(pairwise(edges), sums, strict=True)
    ]


def draw_noise(x0: Tensor, bins: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For one image: a noise for each bin, (bins, ...), and where in the bin, (bins,), 0..1."""
    noise = torch.randn(bins, *x0.shape[1:], generator=generator, dtype=x0.dtype)
    return noise, torch.rand(bins, generator=generator)
