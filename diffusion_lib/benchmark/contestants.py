"""Who takes part: what a contestant is; our trainer and the original's loop as contestants."""

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
from diffusion_lib.config import TrainConfig
from diffusion_lib.devices import find_precision
from diffusion_lib.diffusion import GaussianDiffusion, build
from diffusion_lib.networks.original import OriginalUNet
from diffusion_lib.sampling import sample
from diffusion_lib.schedules import NoiseSchedule
from diffusion_lib.training import Trainer

SAMPLER_STEPS = 25  # of every contestant's sampler
FILE_SIZE = (178, 218)  # of the original's image files: as CelebA's


@dataclass
class Contestant:
    """A model in training, by our library or by another one.

    Each is made from images to train on, uint8, (N, C, S, S), and our configuration, from which
    others take what they have in common with us.

    network: what is trained.
    batch_size: images per step.
    step: one step of the optimizer, with the next batch. It takes the fraction 0..1 of the training
        time that has passed, for the learning rate.
    predict: the network's output, as its sampler calls it, for noisy images (N, C, S, S).
    sample: takes a count, returns so many new images in [-1, 1].
    precision: number format of the network in training.
    model: what samples, of our trainer.
    bare_step: both passes with one batch, and the step of the optimizer: the least that is needed.
    """

    network: nn.Module
    batch_size: int
    step: Callable[[float], object]
    predict: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor] | None = None
    precision: torch.dtype = torch.float32
    model: GaussianDiffusion | None = None
    bare_step: Callable[[], object] | None = None


def ours(
    pixels: Tensor, config: TrainConfig, make: Callable[..., Trainer] | None = None
) -> Contestant:
    """Our trainer, or a subclass of it. It predicts and samples with the averaged weights."""
    trainer = (make or Trainer)(build(config, pixels.shape[1]), pixels, config)
    wrapped = trainer.wrapped  # compiled, if that pays in the configured epochs
    x, seeds = torch.randn_like(trainer.batches.batch(0)), itertools.count(config.seed)

    def step(progress: float) -> None:
        # The learning rate falls to 0 as the time runs out.
        trainer.steps = max(round(trainer.step / progress), trainer.step + 1)
        trainer.train_step()

    def bare_step() -> None:
        trainer.optimizer.zero_grad()
        F.mse_loss(wrapped(x, 0), x).backward()
        trainer.optimizer.step()

    def predict(x: Tensor) -> Tensor:
        return trainer.average(x, 1)

    def draw(count: int) -> Tensor:  # other images at every call
        trainer.average.precision = find_precision("auto", trainer.device)  # as predict has it
        return sample(trainer.average, count, "dpm_solver_sde", SAMPLER_STEPS, seed=next(seeds))

    network, precision = trainer.diffusion.network, trainer.diffusion.precision
    size, model = config.batch_size, trainer.average
    return Contestant(network, size, step, predict, draw, precision, model, bare_step)


def original(pixels: Tensor, config: TrainConfig, from_files: bool = False) -> Contestant:
    """The original's loop: float32, Adam, coefficients gathered on the CPU in every step.

    from_files: whether the training process opens and resizes image files for every batch, as it
        did for the original's users, or takes batches from memory, as all others do.
    """
    device, pixels = torch.device(config.device), pixels.expand(-1, 3, -1, -1)
    network = OriginalUNet(config.image_size).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = NoiseSchedule("linear", 1000)
    tables = [f(torch.arange(1000)).float() for f in (schedule.signal, schedule.sigma)]
    batches = opened_files(pixels, config) if from_files else batches_of(pixels, config)

    def step(progress: float) -> None:
        x0 = next(batches).to(device)
        t = torch.randint(1000, (len(x0),), device=device)
        noise = torch.randn_like(x0)
        optimizer.zero_grad()
        signal, sigma = (table.gather(0, t.cpu()).view(-1, 1, 1, 1).to(device) for table in tables)
        F.mse_loss(network(signal * x0 + sigma * noise, t), noise).backward()
        optimizer.step()

    def predict(x: Tensor) -> Tensor:
        return network(x, torch.ones(len(x), device=device))

    return Contestant(network, config.batch_size, step, predict)


def batches_of(pixels: Tensor, config: TrainConfig, batch_size: int = 0) -> Iterator[Tensor]:
    """Batches from memory, in [-1, 1], on the device; by default as large as ours."""
    size = batch_size or config.batch_size
    stream = BatchStream(pixels, size, config.seed, torch.device(config.device))
    return map(stream.batch, itertools.count())


def opened_files(pixels: Tensor, config: TrainConfig) -> Iterator[Tensor]:
    """Batches from JPEG files, one image after the other, in [-1, 1]. The files are kept in memory,
    as a computer keeps what it has just read: only the disk is left out.
    """
    files, size = [], (config.image_size, config.image_size)
    for image in pixels.permute(0, 2, 3, 1).numpy():
        files.append(io.BytesIO())
        image = Image.fromarray(image).resize(FILE_SIZE, Image.Resampling.BICUBIC)
        image.save(files[-1], "jpeg")
    endless = itertools.cycle(files)
    while True:
        some = itertools.islice(endless, config.batch_size)
        opened = [to_tensor(Image.open(file).convert("RGB").resize(size)) for file in some]
        yield torch.stack(opened) * 2 - 1
