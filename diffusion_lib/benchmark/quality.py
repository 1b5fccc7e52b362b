"""How good are samples? Their distance to the real images, beside that of other samples.

Trainers (`quality`) and recipes (`ablation`) train on the same images for the same seconds of one
processor core. Seconds are those that the process computed (`time.process_time`), with one thread:
so a machine that also does other things favours nobody. Samplers (`steps`) draw from the bundled
model of portraits.
"""

import shlex
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from itertools import product

import torch
from torch import Tensor

from diffusion_lib.benchmark.contestants import Contestant, ours
from diffusion_lib.benchmark.peers import PEERS
from diffusion_lib.benchmark.records import print_medians, read, run_missing
from diffusion_lib.cli import Parser
from diffusion_lib.config import FLOW, TrainConfig
from diffusion_lib.devices import fast_bfloat16
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError, did_you_mean
from diffusion_lib.features import FeatureStatistics, efficientnet_features
from diffusion_lib.images.cache import load_images
from diffusion_lib.images.pixels import to_images
from diffusion_lib.metrics import frechet_distance, kernel_distance
from diffusion_lib.recipe import recipe
from diffusion_lib.sampling import sample

CONTESTANTS = {"ours": ours, "page 04": ours, **PEERS}
IMAGE_SIZE = 16
SAMPLES = 300  # of a trained model
PAGE_04 = {
    "network": "unet",
    "width": 24,
    "blocks": 1,
    "patch": 1,
    "prediction": "epsilon",
    "timestep_sampling": "uniform",
    "optimizer": "adamw",
    "lr": 4e-3,
    "warmup": 100,
    "batch_size": 16,
    "precision": "float32",
}
TODAY = {"device": "cpu", **recipe("cpu", fast_bfloat16()), "held_out": 0.0}  # what `train` does
# The recipe of `train` before the ablation, out of which its weights by min-SNR came.
RECIPE = {**TODAY, "min_snr": 0.0}
CHOICES = {
    "the recipe": {},
    "that of page 04": PAGE_04,
    "a U-Net": {"network": "unet", "width": 16, "blocks": 1, "patch": 1},
    "AdamW": {"optimizer": "adamw", "lr": 2e-3, "warmup": 100},
    "batches of 64": {"batch_size": 64},
    "no average of weights": {"ema": 0.0},
    "predict epsilon": {"prediction": "epsilon"},
    "flow matching": FLOW,
    "uniform timesteps": {"timestep_sampling": "uniform"},
    "weights by min-SNR": {"min_snr": 5.0},
}
STEPS = {
    "dpm_solver": (5, 10, 20),
    "dpm_solver_sde": (10, 20),
    "heun": (5, 10),
    "ddim": (10, 20, 50),
    "ddpm": (50, 1000),
}
STEPS_SAMPLES = 250  # of each sampler


def quality(
    output: str,
    who: Iterable[str],
    data: Iterable[str],
    image_size: int,
    seconds: Iterable[int],
    seeds: int,
) -> None:
    """Train every contestant on every set, for each of the times and seeds: our recipe of today,
    that of page 04, and others, who take from that what they have in common with it.
    """
    settings = {name: TODAY if name == "ours" else {**RECIPE, **PAGE_04} for name in who}
    train_all(output, "who", settings, data, image_size, seconds, seeds)


def ablation(
    output: str,
    choices: Iterable[str] | None,
    data: Iterable[str],
    image_size: int,
    seconds: int,
    seeds: int,
) -> None:
    """Train our recipe with all of its choices, and without one at a time.

    choices: of CHOICES, or flags of `train` that change what it does today: "--patch 4".

    Raises:
        InputError: a choice that there is not.
    """
    settings = {choice: settings_of(choice) for choice in choices or CHOICES}
    train_all(output, "choice", settings, data, image_size, [seconds], seeds)


def settings_of(choice: str) -> dict:
    """Options of `TrainConfig`."""
    if choice.startswith("-"):
        parser = Parser(prog=f"benchmark ablation --choices {choice!r}", add_help=False)
        parser.add_options(TrainConfig)
        flags = vars(parser.parse_args(shlex.split(choice)))
        if ours := flags.keys() & {"image_size", "seed", "epochs", "minutes"}:
            parser.error(f"{min(ours)} is not for one choice: all have the same, by other flags")
        return {**TODAY, **flags}
    if choice not in CHOICES:
        raise InputError(
            f"--choices must be flags of `train` or among {', '.join(CHOICES)}, not {choice!r}"
            f"{did_you_mean(choice, CHOICES)}"
        )
    return {**RECIPE, **CHOICES[choice]}


def train_all(
    output: str,
    key: str,
    settings: dict[str, dict],
    data: Iterable[str],
    image_size: int,
    seconds: Iterable[int],
    seeds: int,
) -> None:
    """Do all runs.

    key: "who", if these are settings for contestants by their names, or "choice", if for ours.
    """
    images = {name: load_images(name, image_size) for name in data}
    scorer = cache(lambda name: Scorer(images[name]))

    def measure(run: dict) -> dict:
        torch.manual_seed(run["seed"])
        changed = {"image_size": image_size, "seed": run["seed"]}
        config = TrainConfig(**{**settings[run[key]], **changed})
        make = partial(CONTESTANTS.get(run[key], ours), images[run["data"]], config)
        contestant, steps = train(make, run["seconds"])
        return {**scorer(run["data"]).distances(draw(contestant)), "steps": steps}

    runs = [
        {key: name, "data": some, "size": image_size, "seconds": limit, "seed": seed}
        for some, limit, seed, name in product(data, seconds, range(seeds), settings)
    ]
    run_missing(output, runs, measure)
    print_medians(read(output), ("data", "size", "seconds", key))


def train(make: Callable[[], Contestant], seconds: float) -> tuple[Contestant, int]:
    """Make a contestant and train it for so many seconds. Returns it, and how many steps it did."""
    torch.set_num_threads(1)
    started, steps = time.process_time(), 0
    contestant = make()
    while (spent := time.process_time() - started) < seconds:
        contestant.step(max(spent / seconds, 1e-6))
        steps += 1
    return contestant, steps


@torch.no_grad()
def draw(contestant: Contestant) -> Tensor:
    """Samples, (SAMPLES, C, H, W) in [-1, 1]."""
    return torch.cat([contestant.sample(50) for _ in range(SAMPLES // 50)]).clamp(-1, 1)


def steps(output: str, seeds: int) -> None:
    """Sample from the bundled model of portraits with every sampler, in few and in many steps."""
    diffusion = GaussianDiffusion.load("faces")
    scorer = cache(lambda: Scorer(load_images("faces", diffusion.image_shape[-1])))

    def measure(run: dict) -> dict:
        chosen = {key: run[key] for key in ("sampler", "steps", "seed")}
        return scorer().distances(sample(diffusion, STEPS_SAMPLES, **chosen))

    # calls of the network: heun calls it twice in each step except the last one
    runs = [
        dict(sampler=name, steps=n, calls=2 * n - 1 if name == "heun" else n, seed=seed)
        for seed in range(seeds)
        for name, numbers in STEPS.items()
        for n in numbers
    ]
    run_missing(output, runs, measure)
    print_medians(read(output), ("sampler", "steps"))


class Scorer:
    """Distances of samples to a set of real images, uint8, (N, C, H, W)."""

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
        """Of samples in [-1, 1], (N, C, H, W)."""
        fake = self.statistics(samples)
        return {
            "samples": len(samples),
            "kernel": round(kernel_distance(self.real.rows, fake.rows).mean, 4),
            "frechet": round(frechet_distance(self.real, fake), 1),
        }
