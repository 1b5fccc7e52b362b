"""Does a model begin to copy its training images? Watched, and foreseen, while it trains.

Memorization shows first in the loss, at a level of noise where the network can only just tell the
training images from one another: where its error on held-out images is WITHIN times the distance
from a training image to its nearest neighbor. There it denoises the images that it is trained on
better than others of their kind:

    gap = log(loss on held-out images / loss on training images)

The gap grows about as the epochs to the power of GROWTH, and samples are copies, which here means
less than half as far from one training image as from any other, once it comes to COPYING.
`python -m diffusion_lib.benchmark copying` measures all of these, and page 06 shows what came out.
"""

import copy
import math
import time
import warnings
from bisect import bisect_left
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

from diffusion_lib.batches import BatchStream
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.files import save_file
from diffusion_lib.images.pixels import to_images
from diffusion_lib.metrics import singled_out
from diffusion_lib.neighbors import nearest
from diffusion_lib.reports import Report
from diffusion_lib.sampling import sample
from diffusion_lib.training import Trainer

WITHIN = 0.6  # at the level that counts: error on held-out images / distance between neighbors
OPEN = 0.6  # the gap from which on copies are foreseen
COPYING = 1.5  # the gap at which copies were measured to begin
GROWTH = 1.5  # the power of epochs with which the gap was measured to grow until then
# Epochs, by the root of the number of images: no run was measured to copy before SAFE, and each of
# at most FEWER images by LATE. FEW: images, the most of which SAFE was measured.
SAFE, LATE = 20.0, 42.0
FEWER, FEW = 100, 800
COPIES = 0.05  # the share of samples from which on a model is said to copy
FEWEST = 5  # held-out images that tell something
LOSSES = 50  # noisy images on either side, or as many as are held out if these are more
SOME, MANY = 200, 2000  # of so many images the nearest neighbors are sought, among so many
TINY = 1e-4  # added to both errors: less than rounding to 8 bits
SAMPLES = 64  # in a look, and four times as many if two or more of them are copies
STEPS = 10  # of the sampler
FIRST, FACTOR = 20, 1.2  # epochs before the first look at the soonest, and from one to the next
REST = 5  # times as long as a look takes, until the next one


def outlook(images: int, epochs: float) -> str:
    """Before a run of so many epochs: when samples may become copies, in a line; "" if not before
    its end, or if so many images were not measured.
    """
    first, last = soonest(images), LATE * math.sqrt(images)
    if not 0 < first <= epochs:
        return ""
    most, when = FEW, f"{SAFE:g} sqrt(n) epochs at the soonest, here {first:.0f}"
    if images <= FEWER:
        most, when = FEWER, f"{SAFE:g} to {LATE:g} sqrt(n) epochs, here {first:.0f} to {last:.0f}"
    return (
        f"{epochs:,.0f} epochs of {images} images: samples may become copies of them. In our runs, "
        f"with n = 50 to {most}, that began after {when} (page 06)"
    )


def soonest(images: int) -> float:
    """The epoch before which no run was measured to copy; 0 if so many images were not measured."""
    return SAFE * math.sqrt(images) if images <= FEW else 0.0


def forecast(images: int, epoch: float, gap: float) -> float:
    """The epoch from which on samples of so many training images may be expected to be copies,
    from the gap at this one, if it is open.
    """
    return max(soonest(images), epoch * (COPYING / gap) ** (1 / GROWTH))


def loss_gap(
    diffusion: GaussianDiffusion, batches: BatchStream, distance: float, losses: int = LOSSES
) -> float:
    """log(loss on held-out images / loss on training images) of a model that these batches train,
    at the first timestep where the error on held-out images is WITHIN * distance.

    It is about 0 at first. Not a number without held-out images.

    Args:
        distance: `distance_of_neighbors` of the training images.
        losses: on how many noisy images, at least.
    """
    if len(batches.unseen) == 0:
        return math.nan
    turns = torch.arange(max(losses, len(batches.unseen)))
    seen, unseen = (which[turns % len(which)] for which in (batches.kept, batches.unseen))
    error_at = cache(lambda t: denoising_error(diffusion, t, batches, unseen))
    timesteps = range(diffusion.schedule.timesteps - 1)
    t = bisect_left(timesteps, WITHIN * distance, key=error_at)  # it grows with t
    error = denoising_error(diffusion, t, batches, seen)
    return 2 * math.log((error_at(t) + TINY) / (error + TINY))


def distance_of_neighbors(batches: BatchStream) -> float:
    """From a training image to the nearest other one: the median of SOME of them, among MANY; a
    root mean square over all pixels on the scale of -1 to 1. 0 if there is only one.
    """
    kept = batches.kept[:MANY].to(batches.pixels.device)
    if len(kept) < 2:
        return 0.0
    images, own = batches.pixels[kept], torch.arange(min(SOME, len(kept)))
    found = nearest(images[: len(own)], images, exclude_self=own, device=batches.device)
    return found.distance.median().item()


@torch.no_grad()
def denoising_error(
    diffusion: GaussianDiffusion, t: int, batches: BatchStream, which: Tensor
) -> float:
    """The root mean square error of x0 on these images, with noise, at timestep t."""
    generator, device, total = torch.Generator().manual_seed(0), diffusion.device, 0.0
    for some in which.split(100):
        x0 = to_images(batches.pixels[some.to(batches.pixels.device)].to(device))
        labels = batches.labels[some].to(device) if diffusion.classes else None
        noise = torch.randn(x0.shape, generator=generator).to(device)
        guess = diffusion.denoise(diffusion.schedule.add_noise(x0, t, noise), t, labels=labels).x0
        total += (guess - x0).square().mean().item() * len(some)
    return math.sqrt(total / len(which))


def draw(trainer: Trainer, samples: int, seed: int) -> Tensor:
    """Samples of the averaged model, with labels as its images have them. (samples, C, H, W)"""
    average, batches = trainer.average, trainer.batches
    generator = torch.Generator().manual_seed(seed)
    which = batches.kept[torch.randint(len(batches.kept), (samples,), generator=generator)]
    labels = batches.labels[which] if average.classes else None
    steps = min(STEPS, average.schedule.timesteps)
    return sample(average, samples, steps=steps, seed=seed, labels=labels, guidance=1.0)


def count_copies(trainer: Trainer, images: Tensor) -> int:
    """How many samples are copies: less than half as far from one training image as from any
    other. With `flip`, mirror images are training images too. images: (N, C, H, W)
    """
    pixels = trainer.batches.pixels
    copies = singled_out(nearest(images, pixels, device=trainer.device))
    if trainer.config.flip:
        copies |= singled_out(nearest(images.flip(-1), pixels, device=trainer.device))
    return int(copies.sum())


class CopyWatch:
    """Looks now and then whether a run has begun to copy, and warns once if it has; before that, it
    warns once from when on copies may be expected.

    file: where the last model that did not copy is saved, once a later one does.
    """

    def __init__(self, trainer: Trainer, file: Path):
        self.trainer, self.file = trainer, file
        self.over = trainer.step > 0 and file.exists()  # in a run that goes on
        self.over |= trainer.batches.pixels.dtype != torch.uint8  # points in the plane
        self.foreseen = False
        self.healthy: tuple[int, dict] | None = None  # the last epoch without copies, and its model
        self.first = max(FIRST, soonest(len(trainer.batches.kept)) / 3)
        self.next_epoch, self.next_time = self.first, 0.0

    def look(self, report: Report) -> None:
        """To be called with each report: look if it is time to, and at the end of the run.

        Raises:
            InputError: the model that did not copy cannot be written.
        """
        started, epoch, ends = time.monotonic(), report.epoch, report.step >= report.steps
        due = started >= self.next_time and report.epoch_ended and epoch >= self.next_epoch
        if self.over or epoch < self.first or not (due or ends):
            return
        gap = loss_gap(self.trainer.average, self.trainer.batches, self.distance)
        share = 0.0 if gap < OPEN else self.share_of_copies(seed=epoch)
        if share > COPIES:
            self.warn_of_copies(epoch, share)
            self.over = True
        else:
            self.healthy = epoch, copy.deepcopy(self.trainer.average.checkpoint())
            self.foresee(report, gap)
        self.next_epoch = FACTOR * epoch
        self.next_time = time.monotonic() + REST * (time.monotonic() - started)

    @cached_property
    def distance(self) -> float:
        return distance_of_neighbors(self.trainer.batches)

    def share_of_copies(self, seed: int) -> float:
        copies = count_copies(self.trainer, draw(self.trainer, SAMPLES, seed))
        if copies < 2:
            return 0.0
        copies += count_copies(self.trainer, draw(self.trainer, 3 * SAMPLES, seed + 2**31))
        return copies / (4 * SAMPLES)

    def warn_of_copies(self, epoch: int, share: float) -> None:
        said = f"after epoch {epoch}, {share:.0%} of the samples are copies of training images"
        if self.healthy is None:
            warnings.warn(f"{said}, as before: start anew with more images", stacklevel=3)
            return
        before, model = self.healthy
        save_file(model, self.file)  # if it cannot be written, the next look tries again
        warnings.warn(
            f"{said}: the model of epoch {before}, before that, is {self.file}", stacklevel=3
        )

    def foresee(self, report: Report, gap: float) -> None:
        """Say when copies may be expected, if that is before the end."""
        few = len(self.trainer.batches.unseen) < FEWEST
        if self.foreseen or few or not gap >= OPEN:
            return
        images = len(self.trainer.batches.kept)
        expected = max(report.epoch, forecast(images, report.epoch, gap))
        if expected > report.epoch / report.step * report.steps:
            return
        self.foreseen = True
        warnings.warn(
            f"after epoch {report.epoch}, the loss on held-out images is {math.exp(gap):.1f} times "
            "that on training images: the model memorizes these, and samples may be copies of them "
            f"from about epoch {expected:.0f} on. Take more images, fewer epochs, or --flip if "
            "left and right may be swapped",
            stacklevel=3,
        )
