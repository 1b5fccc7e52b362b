"""When does a model begin to copy? From few images, in many epochs, with `train`'s recipe.

Now and then: the gap of the losses, the share of copies among samples, and their kernel distance to
the whole set. So one sees both clocks: until samples are good, and until they are copies.
"""

from collections.abc import Iterable
from functools import cache
from itertools import product

import torch

from diffusion_lib import copying as watch
from diffusion_lib.benchmark.quality import TODAY, Scorer
from diffusion_lib.benchmark.records import print_table, read, run_missing
from diffusion_lib.config import TrainConfig
from diffusion_lib.diffusion import build
from diffusion_lib.errors import InputError
from diffusion_lib.images.cache import load_images
from diffusion_lib.training import Trainer

HELD_OUT = 50  # images, at most as many as are trained on
SAMPLES = 256
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
        looks, due = {"step": [], "epoch": [], "gap": [], "copies": [], "kernel": []}, FIRST_STEP
        while trainer.step < trainer.steps:
            trainer.diffusion.train()
            trainer.train_step()
            if trainer.step >= due:
                drawn = watch.draw(trainer, SAMPLES, seed=trainer.step)
                copies = watch.count_copies(trainer, drawn) / SAMPLES
                gap = watch.loss_gap(trainer.average, trainer.batches)
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
    """When the gap of each run was open, and when it began to copy."""
    rows = [
        [
            *(str(record[key]) for key in ("data", "size", "images", "seed")),
            *(epoch_of(record, key, level) for key, level in LEVELS.items()),
            f"{min(record['kernel']):.2f}",
        ]
        for record in records
    ]
    print_table(["data", "size", "images", "seed", "gap open", "copies", "best kernel"], rows)
    print("epochs after which the gap is open, and 5% of the samples are copies")


LEVELS = {"gap": watch.OPEN, "copies": watch.COPIES}


def epoch_of(record: dict, key: str, level: float) -> str:
    """The first look at which a value is that high, or "-"."""
    looks = zip(record["epoch"], record[key], strict=True)
    return next((f"{epoch:.0f}" for epoch, value in looks if value >= level), "-")
