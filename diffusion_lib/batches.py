"""Batches of images on the device, in an order that depends on nothing but the seed; and random
timesteps for them.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from diffusion_lib.images.pixels import to_images

FEW, MOST_HELD_OUT = 50, 100


class BatchStream:
    """An endless stream of shuffled batches, in which batch number k is always the same.

    The stream runs through all images in a random order, then through all of them in another, and
    so on, and is cut into batches of one size. So every image is seen equally often, no batch is
    smaller than the others, and a run that stopped after k batches goes on with batch k.

    Args:
        pixels: uint8 images, shape (N, C, H, W), or floats of any shape (N, ...), used as they are.
        batch_size: B.
        seed: of the order.
        device: where batches go. On a GPU all pixels are kept there if half of what is free
            holds them; otherwise the next batch is gathered while the GPU computes.
        rank_slice: which images of each batch are wanted; by default all.
        labels: of the images, int64, (N, columns); by default they have none, (N, 0).
        held_out: how many images, chosen at random, no batch has.

    Attributes:
        kept, unseen: which images batches have, and which they do not.
    """

    def __init__(
        self,
        pixels: Tensor,
        batch_size: int,
        seed: int,
        device: torch.device,
        rank_slice: slice = slice(None),
        labels: Tensor | None = None,
        held_out: int = 0,
    ):
        if device.type == "cuda" and 2 * pixels.nbytes < torch.cuda.mem_get_info(device)[0]:
            pixels = pixels.to(device)
        self.pixels, self.batch_size, self.seed, self.device = pixels, batch_size, seed, device
        self.rank_slice = rank_slice
        self.labels = torch.empty(len(pixels), 0, dtype=torch.long) if labels is None else labels
        self.kept, self.unseen = torch.arange(len(pixels)), torch.arange(0)
        if held_out:
            order = self._order(-1)  # of all of them; epochs are 0, 1, ...
            self.kept, self.unseen = order[held_out:], order[:held_out]
        self.order = lru_cache(maxsize=2)(self._order)
        self.ahead = device.type == "cuda" and pixels.device.type == "cpu"
        self.thread = ThreadPoolExecutor(1) if self.ahead else None
        self.next: tuple[int, Future] | None = None  # the batch that the thread gathers

    def _order(self, epoch: int) -> Tensor:
        """The order of images in one epoch: a permutation of `kept`."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return self.kept[torch.randperm(len(self.kept), generator=generator)]

    def indices(self, k: int) -> Tensor:
        """Which images batch number k holds, shape (B,)."""
        positions = torch.arange(k * self.batch_size, (k + 1) * self.batch_size)
        epochs, places = positions // len(self.kept), positions % len(self.kept)
        return torch.cat(
            [self.order(epoch)[places[epochs == epoch]] for epoch in epochs.unique().tolist()]
        )

    def gather(self, k: int) -> Tensor:
        """This process's slice of batch number k, as it is stored."""
        places = self.indices(k)[self.rank_slice]
        if self.pixels.is_cuda:  # from other memory, a copy would wait until the GPU is done
            places = places.pin_memory().to(self.pixels.device, non_blocking=True)
        return self.pixels[places]

    def prefetch(self, k: int) -> Tensor:
        """The same from memory that a GPU copies from while it computes; then begin with k + 1."""
        expected, gathered = self.next or (k, None)
        some = gathered.result() if gathered and expected == k else self.gather(k).pin_memory()
        self.next = k + 1, self.thread.submit(lambda: self.gather(k + 1).pin_memory())
        return some

    def batch(self, k: int) -> Tensor:
        """Batch number k: float32 in [-1, 1], shape (B, C, H, W) or (B, ...), on the device."""
        some = self.prefetch(k) if self.ahead else self.gather(k)
        return to_images(some.to(self.device, non_blocking=True))

    def batch_labels(self, k: int) -> Tensor:
        """The labels of the images in `batch(k)`, (B, columns), on the device."""
        some = self.labels[self.indices(k)[self.rank_slice]]
        if self.device.type == "cuda" and some.numel():  # from other memory, it waits for the GPU
            some = some.pin_memory()
        return some.to(self.device, non_blocking=True)


def how_many_held_out(share: float, images: int) -> int:
    """Of how many images the run is not trained on: of few images none, of many MOST_HELD_OUT."""
    return min(round(share * images), MOST_HELD_OUT) if images >= FEW else 0


def uniform(timesteps: int, shape: tuple[int, ...], **where) -> Tensor:
    """Timesteps 0..T-1, each as likely as any other (Ho et al. 2020, algorithm 1).

    where: the device and generator.
    """
    return torch.randint(timesteps, shape, **where)


def logit_normal(timesteps: int, shape: tuple[int, ...], **where) -> Tensor:
    """t = T sigmoid(z), rounded down, for z from N(0, 1): more from the middle than from the ends
    (Esser et al. 2024, arXiv 2403.03206, section 3.1, with m = 0 and s = 1).
    """
    return (timesteps * torch.randn(shape, **where).sigmoid()).long()


TIMESTEP_SAMPLING = {"uniform": uniform, "logit_normal": logit_normal}
