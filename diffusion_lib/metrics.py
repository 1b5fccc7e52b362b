"""How good are samples? Distances between sets of images, copies, and the loss by noise level.

A distance has a meaning only beside others made with the same features and as many samples.
"""

import statistics
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.features import FeatureStatistics
from diffusion_lib.images.pixels import to_images, to_pixels

# Distances between two sets of features


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> float:
    """Between two Gaussians with these means and covariances (Heusel et al. 2017, arXiv
    1706.08500, eq. 6):

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    It is the smaller, the more samples there are: compare only at the same number.

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


class KernelDistance(NamedTuple):
    """mean: the estimate. spread: standard deviation between the subsets."""

    mean: float
    spread: float


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int = 50, subset_size: int = 500, seed: int = 0
) -> KernelDistance:
    """Unbiased squared maximum mean discrepancy (Binkowski et al. 2018, arXiv 1801.01401, eq. 4),
    with the kernel k(x, y) = (x . y / D + 1)^3, as a mean over random subsets.

        mean of k(a, a') over a != a'  +  mean of k(b, b') over b != b'  -  2 mean of k(a, b)

    It does not depend on the number of samples, and is below 0 as often as above where both sets
    are of one kind. The spread says something only if subsets are smaller than the sets.

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
    spread = statistics.stdev(estimates) if subsets > 1 else 0.0
    return KernelDistance(statistics.fmean(estimates), spread)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x . y / D + 1)^3 for all pairs. (N, D), (M, D) -> (N, M)"""
    return (x @ y.T / x.shape[1] + 1) ** 3


class PrecisionRecall(NamedTuple):
    """precision: share of fakes that could be real. recall: share of reals that could be fakes."""

    precision: float
    recall: float


def precision_recall(
    real: Tensor, fake: Tensor, k: int = 3, chunk_size: int = 1000
) -> PrecisionRecall:
    """Are samples like real images, and are there samples like each of these? (Kynkaanniemi et al.
    2019, arXiv 1904.06991, eq. 1 and 2)

    Each set is taken for the region of the balls around its points that just reach their k-th
    nearest neighbour. Precision is the share of fakes in the region of the reals, recall the share
    of reals in that of the fakes. Both depend on the numbers: compare only at the same ones.

    Args:
        real, fake: features, shapes (N, D) and (M, D).
        chunk_size: rows that are compared with all others at a time.

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

    def share_within(points: Tensor, region: Tensor) -> float:
        reach = radii(region)
        chunks = points.split(chunk_size)
        return sum(
            (distances(some, region) <= reach).any(dim=1).sum().item() for some in chunks
        ) / len(points)

    return PrecisionRecall(share_within(fake, real), share_within(real, fake))


def require_same_width(a: Tensor, b: Tensor) -> None:
    """Raise InputError unless both have as many features an image."""
    if a.shape[-1] != b.shape[-1]:
        raise InputError(
            f"features of one kind have one width, but these have {a.shape[-1]} and {b.shape[-1]}"
        )


# Copies


class Nearest(NamedTuple):
    """For each image its nearest among others.

    distance: root mean square over all pixels, on the scale of -1 to 1, float32, shape (N,).
    number: which of the others it is, shape (N,).
    """

    distance: Tensor
    number: Tensor


@torch.no_grad()
def nearest(
    images: Tensor,
    among: Tensor,
    exclude_self: bool | Tensor = False,
    device: torch.device | str = "cpu",
    chunk_bytes: int = 2**26,
) -> Nearest:
    """The nearest of many images to each image, pixel by pixel, as 8 bits show them.

    Distances are exact: between copies they are 0.

    Args:
        images: uint8, or floats in [-1, 1], shape (N, C, H, W).
        among: uint8, or floats in [-1, 1], shape (M, C, H, W); it may be mapped from a file.
        exclude_self: True where both are one set, so that no image is its own nearest. Where
            images are only some of `among`: the number that each has there, shape (N,).
        device: where to compute.
        chunk_bytes: about what a chunk takes of the device's memory.

    Raises:
        InputError: no images, or images of two shapes.
    """
    if len(images) == 0 or len(among) == 0 or images.shape[1:] != among.shape[1:]:
        raise InputError(
            "nearest images need images of one shape on either side, not "
            f"{tuple(images.shape)} and {tuple(among.shape)}"
        )
    if exclude_self is True:
        exclude_self = torch.arange(len(images))
    own = None if exclude_self is False else exclude_self.to(device)
    if own is not None and (len(own) != len(images) or len(among) < 2):
        raise InputError(
            f"{len(images)} images that are not to meet themselves need as many numbers, and at "
            f"least two images to be among, not {len(own)} and {len(among)}"
        )
    rows = max(1, chunk_bytes // (4 * images[0].numel()))
    found = [
        nearest_of_chunk(
            images[first : first + rows],
            among,
            None if own is None else own[first : first + rows],
            rows,
            device,
        )
        for first in range(0, len(images), rows)
    ]
    return Nearest(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def nearest_of_chunk(
    images: Tensor, among: Tensor, own: Tensor | None, rows: int, device: torch.device | str
) -> Nearest:
    """`nearest` for as many images as are looked at together; `own` are their numbers in among.

    A matrix product gives all squared distances fast, but only up to rounding. So it proposes four,
    and these are then subtracted pixel by pixel.
    """
    x = as_rows(images, device)  # (n, D)
    best = torch.empty(len(x), 0, device=device)
    numbers = torch.empty(len(x), 0, dtype=torch.long, device=device)
    for first in range(0, len(among), rows):
        y = as_rows(among[first : first + rows], device)  # (m, D)
        squares = torch.addmm(y.square().sum(dim=1), x, y.T, alpha=-2)  # (n, m), less |x|^2
        here = torch.arange(first, first + len(y), device=device).expand_as(squares)
        if own is not None:
            squares = squares.masked_fill(here == own[:, None], torch.inf)
        best, numbers = torch.cat([best, squares], dim=1), torch.cat([numbers, here], dim=1)
        best, places = best.topk(min(4, best.shape[1]), largest=False)
        numbers = numbers.gather(1, places)
    exact = torch.stack(
        [
            (x - as_rows(among[some.to(among.device)], device)).square().mean(dim=1).sqrt()
            for some in numbers.T
        ],
        dim=1,
    ).masked_fill(best.isinf(), torch.inf)  # (n, 4)
    distance, place = exact.min(dim=1)
    return Nearest(distance.cpu(), numbers.gather(1, place[:, None])[:, 0].cpu())


def as_rows(images: Tensor, device: torch.device | str) -> Tensor:
    """Images as 8 bits show them: (N, C, H, W) -> (N, C H W) in [-1, 1], float32."""
    return to_images(to_pixels(images).to(device)).flatten(1)


class Memorisation(NamedTuple):
    """Are samples nearer to the training images than real images are that were not trained on?

    samples: median distance of a sample to the nearest training image.
    held_out: that of a held-out image.
    copies: share of samples that are at most as far as the nearest 1% of held-out images. About
        0.01 if the model has learnt nothing by heart.
    """

    samples: float
    held_out: float
    copies: float


def memorisation(
    samples: Tensor,
    training: Tensor,
    held_out: Tensor | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Memorisation:
    """Compare distances to the nearest training image (see `nearest`): of samples, and of real
    images that the model has not seen.

    Args:
        samples, training, held_out: uint8, or floats in [-1, 1], shape (N, C, H, W). Without
            held-out images, training images stand for them, each against all others; at most
            10,000 of them, chosen at random.

    Raises:
        InputError: no images, images of two shapes, or one training image and none held out.
    """
    ours = nearest(samples, training, device=device).distance
    if held_out is not None:
        theirs = nearest(held_out, training, device=device).distance
    else:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(training), generator=generator)[:10_000]
        theirs = nearest(training[chosen], training, chosen, device).distance
    share = (ours <= theirs.quantile(0.01)).double().mean()
    return Memorisation(ours.median().item(), theirs.median().item(), share.item())


# The loss


class NoiseLevel(NamedTuple):
    """The mean loss at timesteps first..last, both included."""

    first: int
    last: int
    loss: float


@torch.no_grad()
def loss_per_noise_level(
    diffusion: GaussianDiffusion,
    images: Tensor,
    levels: int = 10,
    batch_size: int = 64,
    seed: int = 0,
) -> list[NoiseLevel]:
    """Where is a model good? Its loss in equal parts of the timesteps, from faint noise to strong.

    Every image meets every level once, at a timestep and with a noise that depend on the seed and
    the number of the image only: so two models with one prediction and schedule compare.

    Args:
        diffusion: a model; the loss is of what it predicts, see `GaussianDiffusion.loss`.
        images: uint8, or floats in [-1, 1], shape (N, ...).
        levels: how many parts, 1 to T.

    Raises:
        InputError: no images, or more levels than timesteps.
    """
    timesteps = diffusion.schedule.timesteps
    if not 1 <= levels <= timesteps:
        raise InputError(f"levels must be 1 to {timesteps}, the timesteps, not {levels}")
    if len(images) == 0:
        raise InputError("the loss of a noise level needs at least one image")
    if batch_size < 1:
        raise InputError(f"the batch size must be at least 1, not {batch_size}")
    device = next((weights.device for weights in diffusion.parameters()), images.device)
    was_training = diffusion.training
    diffusion.eval()
    generator = torch.Generator().manual_seed(seed)
    edges = [timesteps * level // levels for level in range(levels + 1)]
    sums = [0.0] * levels
    for first in range(0, len(images), batch_size):
        x0 = to_images(images[first : first + batch_size]).to(device)
        draws = [draw_noise(x0, levels, generator) for _ in range(len(x0))]
        noise = torch.stack([noise for noise, _ in draws]).to(device)  # (n, levels, ...)
        places = torch.stack([place for _, place in draws]).to(device)  # (n, levels), 0..1
        for level in range(levels):
            width = edges[level + 1] - edges[level]
            t = edges[level] + (places[:, level] * width).long()
            sums[level] += diffusion.loss(x0, t, noise[:, level]).item() * len(x0)
    diffusion.train(was_training)
    return [
        NoiseLevel(edges[level], edges[level + 1] - 1, sums[level] / len(images))
        for level in range(levels)
    ]


def draw_noise(x0: Tensor, levels: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For one image: a noise for each level, (levels, ...), and where in the level, (levels,)."""
    noise = torch.randn(levels, *x0.shape[1:], generator=generator, dtype=x0.dtype)
    return noise, torch.rand(levels, generator=generator)
