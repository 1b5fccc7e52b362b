"""When does a model begin to copy? From few images, in many epochs, with `train`'s recipe.

Now and then: the gap of the losses, the share of copies among samples, and their kernel distance to
the whole set. So one sees both clocks: until samples are good, and until they are copies.
"""

import math
from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from diffusion_lib import charts
from diffusion_lib import copying as watch
from diffusion_lib.benchmark.quality import TODAY, Scorer
from diffusion_lib.benchmark.records import print_table, read, run_missing
from diffusion_lib.config import TrainConfig
from diffusion_lib.diffusion import build
from diffusion_lib.errors import InputError
from diffusion_lib.images.cache import load_images
from diffusion_lib.plots import Picture
from diffusion_lib.training import Trainer

HELD_OUT = 50  # images, at most as many as are trained on
SAMPLES = 256
LOSSES = 200  # for the gap: noisy images on either side
FIRST_STEP = 60
ENOUGH = 0.2  # copies, after which a run ends


def copying(
    output: str,
    data: Iterable[str],
    images: Iterable[int],
    image_size: int,
    epochs: int,
    seeds: int,
) -> None:
    """Train on each number of images of each set.

    Raises:
        InputError: a set has not so many.
    """
    pixels = {name: load_images(name, image_size) for name in data}
    scorer = cache(lambda name: Scorer(pixels[name]))

    def measure(run: dict) -> dict:
        whole = pixels[run["data"]]
        order = torch.randperm(
            len(whole), generator=torch.Generator().manual_seed(100 + run["seed"])
        )
        held_out = min(HELD_OUT, run["images"])
        if len(whole) < run["images"] + held_out:
            raise InputError(
                f"{run['data']} has {len(whole)} images: too few to train on {run['images']} "
                f"and to hold {held_out} out"
            )
        some = whole[order[: run["images"] + held_out]]
        changed = {"seed": run["seed"], "held_out": held_out / len(some), "epochs": epochs}
        config = TrainConfig(**{**TODAY, **changed, "image_size": image_size})
        trainer = Trainer(build(config, some.shape[1]), some, config)
        distance = watch.distance_of_neighbors(trainer.batches)
        looks, due = {"step": [], "epoch": [], "gap": [], "copies": [], "kernel": []}, FIRST_STEP
        while trainer.step < trainer.steps:
            trainer.diffusion.train()
            trainer.train_step()
            if trainer.step >= due:
                drawn = watch.draw(trainer, SAMPLES, seed=trainer.step)
                copies = watch.count_copies(trainer, drawn) / SAMPLES
                gap = watch.loss_gap(trainer.average, trainer.batches, distance, LOSSES)
                kernel = scorer(run["data"]).distances(drawn)["kernel"]
                found = (trainer.step, trainer.step / trainer.steps_per_epoch, gap, copies, kernel)
                for values, value in zip(looks.values(), found, strict=True):
                    values.append(round(value, 4))
                if copies >= ENOUGH:
                    break
                due = max(due + 1, watch.FACTOR * due)
        return looks

    runs = [
        {"data": name, "images": count, "size": image_size, "epochs": epochs, "seed": seed}
        for seed, count, name in product(range(seeds), images, data)
    ]
    run_missing(output, runs, measure)
    show(read(output))


def show(records: list[dict]) -> None:
    """When each run began to copy, and when that was foreseen."""
    rows = [
        [
            *(str(record[key]) for key in ("data", "size", "images", "seed")),
            *("-" if math.isnan(epoch) else f"{epoch:.0f}" for epoch in clock(record)),
            f"{min(record['kernel']):.2f}",
        ]
        for record in records
    ]
    heads = ["data", "size", "images", "seed", "gap open", "forecast", "copies", "best kernel"]
    print_table(heads, rows)
    print("epochs: the gap is open, what is forecast then, and 5% of the samples are copies")


class Clock(NamedTuple):
    """Epochs, or not a number where it did not come to that."""

    opened: float  # at this look the gap is open,
    forecast: float  # and this is foreseen
    copies: float  # 5% of the samples are copies; between two looks


def clock(record: dict) -> Clock:
    epochs, gaps, shares = (np.array(record[key]) for key in ("epoch", "gap", "copies"))
    opened = forecast = copies = math.nan
    if (gaps >= watch.OPEN).any():
        k = np.argmax(gaps >= watch.OPEN)
        opened, forecast = epochs[k], watch.forecast(record["images"], epochs[k], gaps[k])
    if (shares >= watch.COPIES).any():
        k = np.argmax(shares >= watch.COPIES)
        around = slice(max(0, k - 1), k + 1)
        copies = np.interp(watch.COPIES, shares[around], epochs[around])
    return Clock(opened, forecast, copies)


def draw_clocks(records: list[dict]) -> Picture:
    """Distances and copies over the training steps."""
    steps = torch.logspace(1.8, 4.4, 200)
    labels = {"kernel": "kernel distance", "copies": "share of copies"}
    return charts.panels(
        [
            {
                "x": steps,
                "lines": {
                    f"{run['images']} images": between_looks(run, "step", key, steps)
                    for run in records
                },
                "xlabel": "training steps",
                "xscale": "log",
                "ylabel": label,
            }
            for key, label in labels.items()
        ]
    )


def draw_gaps(records: list[dict]) -> Picture:
    """The gap over the epochs, and over the part that has passed until copies begin."""
    epochs, parts = torch.linspace(20, 1000, 200), torch.linspace(0.05, 1.1, 200)
    lines, on_own_clock = {}, {}
    for run in records:
        name = f"{run['images']} of {run['data']}"
        lines[name] = between_looks(run, "epoch", "gap", epochs)
        on_own_clock[name] = between_looks(run, "epoch", "gap", parts * clock(run).copies)
    left = {"x": epochs, "lines": lines, "xlabel": "epochs", "ylabel": "gap"}
    right = {"x": parts, "lines": on_own_clock, "xlabel": "epochs / epochs until there are copies"}
    return charts.panels([left | {"ylim": (0, 2)}, right | {"ylim": (0, 2)}])


def between_looks(record: dict, along: str, key: str, x: torch.Tensor) -> np.ndarray:
    """A value of a run; not a number before the first look and after the last one."""
    return np.interp(x, record[along], record[key], left=math.nan, right=math.nan)
