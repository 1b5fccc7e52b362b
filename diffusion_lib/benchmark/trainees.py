"""Who takes part in `speed`: our trainer, the original's loop, and the peers, all alike to a clock.

The peers get the width at which a forward pass takes about as many floating-point operations as
ours, so that all have the same work to do.
"""

import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import to_tensor

from diffusion_lib.batches import BatchStream
from diffusion_lib.benchmark.peers import PEERS
from diffusion_lib.config import TrainConfig
from diffusion_lib.devices import find_device
from diffusion_lib.estimate import flops
from diffusion_lib.networks.original import OriginalUNet
from diffusion_lib.networks.unet import UNet
from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.training import Trainer, build

IMAGES = 256  # to train on
FILE_SIZE = (178, 218)  # of the original's image files: as CelebA's
WIDTH_STEPS = {"denoising-diffusion-pytorch": 8, "diffusers": 16, "smalldiffusion": 32}
# The original twice: from files, as its users ran it, and its step alone.
FROM_FILES, STEP_ALONE = "original", "original, step alone"


@dataclass
class Trainee:
    """A model in training.

    step: does one optimisation step.
    answer: gives the network's answer to noisy images (N, C, S, S).
    network: what is trained.
    precision: the number format in which it is trained.
    """

    step: Callable[[], object]
    answer: Callable[[Tensor], object]
    network: nn.Module
    precision: torch.dtype


def make(who: str, config: TrainConfig, channels: int, width: int) -> Trainee:
    """The trainer of this name, ready for its first step. `width` is that of a peer."""
    device = find_device(config.device)
    if who == "ours":
        return ours(config, channels)
    if who in (FROM_FILES, STEP_ALONE):
        return original(config, device, who == FROM_FILES)
    peer = PEERS[who](channels, config.image_size, width=width, device=device)
    batches = given_batches(config, channels, device)

    def answer(x: Tensor) -> object:
        # smalldiffusion calls with one noise level for all images, the others with one for each
        t = torch.ones((), device=device)
        return peer.network(x, t if who == "smalldiffusion" else t.expand(len(x)))

    return Trainee(lambda: peer.step(next(batches), 0.5), answer, peer.network, peer.precision)


def ours(config: TrainConfig, channels: int) -> Trainee:
    """Our trainer. The network that answers is the average, as in sampling."""
    trainer = Trainer(build(config, channels), random_pixels(channels, config.image_size), config)
    trainer.diffusion.train()

    def answer(x: Tensor) -> Tensor:
        return trainer.average.network(x, torch.ones(len(x), device=x.device))

    return Trainee(trainer.train_step, answer, trainer.diffusion.network, trainer.precision)


def original(config: TrainConfig, device: torch.device, from_files: bool) -> Trainee:
    """The original's loop: float32, Adam, coefficients gathered on the CPU at every step.

    Args:
        from_files: whether the training process opens and resizes images for every batch, as it
            does, or is given batches, as all others are.
    """
    network = OriginalUNet(config.image_size).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = NoiseSchedule("linear", 1000)
    signal, sigma = (schedule.alpha_bars.sqrt().float(), (1 - schedule.alpha_bars).sqrt().float())
    batches = opened_files(config) if from_files else given_batches(config, 3, device)

    def at(table: Tensor, t: Tensor) -> Tensor:
        return table.gather(0, t.cpu()).view(-1, 1, 1, 1).to(device)

    def step() -> None:
        x0 = next(batches).to(device)
        t = torch.randint(schedule.timesteps, (config.batch_size,), device=device)
        noise = torch.randn_like(x0)
        optimiser.zero_grad()
        F.mse_loss(network(at(signal, t) * x0 + at(sigma, t) * noise, t), noise).backward()
        optimiser.step()

    def answer(x: Tensor) -> Tensor:
        return network(x, torch.ones(len(x), device=x.device))

    return Trainee(step, answer, network, torch.float32)


def random_pixels(channels: int, size: int) -> Tensor:
    """Uint8, shape (IMAGES, channels, size, size)."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (IMAGES, channels, size, size), dtype=torch.uint8, generator=random)


def given_batches(config: TrainConfig, channels: int, device: torch.device) -> Iterator[Tensor]:
    """Batches from memory, in [-1, 1], on the device."""
    pixels = random_pixels(channels, config.image_size)
    stream = BatchStream(pixels, config.batch_size, config.seed, device)
    return map(stream.batch, itertools.count())


def opened_files(config: TrainConfig) -> Iterator[Tensor]:
    """Batches from JPEG files, in [-1, 1]. The files are held in memory, where a computer holds
    what it has just read: only the disk is left out.
    """
    files = []
    for image in random_pixels(3, 16).permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image).resize(FILE_SIZE, Image.Resampling.BICUBIC).save(file, "jpeg")
        files.append(file)
    endless, size = itertools.cycle(files), (config.image_size, config.image_size)
    while True:
        some = itertools.islice(endless, config.batch_size)
        opened = [to_tensor(Image.open(file).convert("RGB").resize(size)) for file in some]
        yield torch.stack(opened) * 2 - 1


def width_for_like_flops(who: str, config: TrainConfig, channels: int) -> int:
    """The width at which this peer's network comes nearest to ours in operations."""
    target = count("ours", config, channels, 0)
    below, step = 0, WIDTH_STEPS[who]
    for width in itertools.count(step, step):
        found = count(who, config, channels, width)
        if found >= target:
            return width - step if width > step and target - below < found - target else width
        below = found


def count(who: str, config: TrainConfig, channels: int, width: int) -> int:
    """Floating-point operations of a forward pass of one image."""
    size, meta = (config.image_size, torch.device("meta"))  # shapes only: nothing is computed
    with meta:
        if who == "ours":
            shape = (config.width, config.patch, config.blocks)
            network = UNet.for_images(size, channels, *shape)
        elif who in (FROM_FILES, STEP_ALONE):
            network, channels = OriginalUNet(size), 3
        else:
            network = PEERS[who](channels, size, width=width, device=meta).network
    return flops(network, (channels, size, size))
