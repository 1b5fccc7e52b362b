"""Time to quality: so many seconds of training, then how far are the samples from the real images?

All train on the same images for the same seconds of one processor core, and are judged by the same
distance. Seconds are those that the process computed (`time.process_time`), with one thread: so a
machine that also does other things does not favour anyone.
"""

import itertools
import time

import torch
from torch import Tensor

from diffusion_lib.batches import BatchStream
from diffusion_lib.benchmark.peers import PEERS, SAMPLER_STEPS, Peer
from diffusion_lib.benchmark.records import append, read
from diffusion_lib.config import TrainConfig
from diffusion_lib.features import FeatureStatistics, efficientnet_features
from diffusion_lib.images.cache import load_images
from diffusion_lib.images.pixels import to_images
from diffusion_lib.metrics import frechet_distance, kernel_distance
from diffusion_lib.samplers import sample
from diffusion_lib.training import Trainer, build

IMAGE_SIZE = 16
SAMPLES = 300
OURS = dict(
    image_size=IMAGE_SIZE,
    beta_schedule="cosine",
    shift=0.5,
    prediction="epsilon",
    width=24,
    blocks=1,
    patch=1,
    batch_size=16,
    lr=4e-3,
    device="cpu",
)


def ours(pixels: Tensor, config: TrainConfig) -> Peer:
    """Our trainer. It draws its own batches; the learning rate falls to 0 as the time runs out."""
    trainer = Trainer(build(config, pixels.shape[1]), pixels, config)

    def step(_: Tensor, progress: float) -> None:
        trainer.diffusion.train()
        trainer.steps = max(round(trainer.step / progress), trainer.step + 1)
        trainer.train_step()

    seeds = itertools.count(config.seed)  # other images at every call

    def draw_some(count: int) -> Tensor:
        settings = dict(sampler="dpm_solver_sde", steps=SAMPLER_STEPS, seed=next(seeds))
        return sample(trainer.average, count, **settings)

    network = trainer.diffusion.network
    return Peer(config.batch_size, step, draw_some, network, trainer.precision)


def draw(who: str, pixels: Tensor, seconds: float, seed: int, **changes) -> Tensor:
    """Train for so many seconds, then sample: (SAMPLES, C, H, W) in [-1, 1].

    Args:
        who: "ours", or one of PEERS.
        pixels: uint8, shape (N, C, H, W).
        changes: to the recipe, if it is ours.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    started, number = time.process_time(), 0
    if who == "ours":
        trainee = ours(pixels, TrainConfig(**{**OURS, "seed": seed, **changes}))
    else:
        trainee = PEERS[who](pixels.shape[1], pixels.shape[2])
    batches = BatchStream(pixels, trainee.batch_size, seed, torch.device("cpu"))
    while (spent := time.process_time() - started) < seconds:
        trainee.step(batches.batch(number), max(spent / seconds, 1e-6))
        number += 1
    with torch.no_grad():
        return torch.cat([trainee.sample(50) for _ in range(SAMPLES // 50)]).clamp(-1, 1)


class Judge:
    """The distances of samples from a set of real images, uint8, shape (N, C, H, W)."""

    def __init__(self, pixels: Tensor):
        torch.set_num_threads(1)
        self.features = efficientnet_features()
        self.real = self.statistics(to_images(pixels))

    def statistics(self, images: Tensor) -> FeatureStatistics:
        statistics = FeatureStatistics()
        for batch in images.split(100):
            statistics.add(self.features(batch))
        return statistics

    def distances(self, samples: Tensor) -> dict[str, float]:
        """For samples in [-1, 1], shape (N, C, H, W)."""
        fake = self.statistics(samples)
        return {
            "samples": len(samples),
            "kernel": round(kernel_distance(self.real.rows, fake.rows).mean, 4),
            "frechet": round(frechet_distance(self.real, fake), 1),
        }


def measure(path: str, data: list[str], who: list[str], seconds: list[int], seeds: int) -> None:
    """Do all runs that the file at `path` does not hold yet, and add them to it."""
    keys = ("who", "data", "seconds", "seed")
    done = {tuple(record[key] for key in keys) for record in read(path)}
    for name in data:
        pixels, judge = load_images(name, IMAGE_SIZE), None
        for time_limit in seconds:
            for seed in range(seeds):
                for trainee in who:
                    run = (trainee, name, time_limit, seed)
                    if run in done:
                        continue
                    judge = judge or Judge(pixels)
                    samples = draw(trainee, pixels, time_limit, seed)
                    append(path, {**dict(zip(keys, run, strict=True)), **judge.distances(samples)})
                    print(*run, flush=True)
