"""Which prediction learns fastest, and from which timesteps? Each with the better of two rates."""

from collections.abc import Iterable
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch

from diffusion_lib.benchmark.contestants import ours
from diffusion_lib.benchmark.quality import IMAGE_SIZE, RECIPE, SAMPLES, Scorer, train
from diffusion_lib.benchmark.records import medians, print_table, read, run_missing, with_range
from diffusion_lib.config import TrainConfig
from diffusion_lib.images.cache import load_images
from diffusion_lib.sampling import sample

STRAIGHT = {"beta_schedule": "straight", "shift": 1.0, "prediction": "velocity"}
# On a variance-preserving path v is, up to its sign, what EDM's network predicts (Karras et al.
# 2022, eq. 7, for data of variance 1), and EDM draws noise levels from the middle: its row is v
# with logit-normal timesteps.
CHOICES = {
    "epsilon": {"prediction": "epsilon", "timestep_sampling": "uniform"},
    "x0": {"prediction": "x0", "timestep_sampling": "uniform"},
    "x0, logit-normal": {"prediction": "x0"},
    "v": {"prediction": "v", "timestep_sampling": "uniform"},
    "v, logit-normal": {"prediction": "v"},
    "velocity": {**STRAIGHT, "timestep_sampling": "uniform"},
    "velocity, logit-normal": STRAIGHT,
}
RATES = (4e-3, 8e-3)
CALLS = (5, 10, 20)  # of the network, by dpm_solver


def predictions(output: str, data: Iterable[str], seconds: int, seeds: int) -> None:
    """Train the recipe with each prediction: with seed 0 at both rates, then at the better one."""
    images = {name: load_images(name, IMAGE_SIZE) for name in data}
    scorer = cache(lambda name: Scorer(images[name]))

    def measure(run: dict) -> dict:
        changed = {**CHOICES[run["choice"]], "lr": run["lr"], "seed": run["seed"]}
        config = TrainConfig(image_size=IMAGE_SIZE, **{**RECIPE, **changed})
        contestant, steps = train(partial(ours, images[run["data"]], config), run["seconds"])
        contestant.model.precision = torch.float32
        kernels = {
            f"kernel_{n}": scorer(run["data"]).distances(
                sample(contestant.model, SAMPLES, "dpm_solver", n, seed=run["seed"])
            )["kernel"]
            for n in CALLS
        }
        return {**kernels, "steps": steps}

    def runs(seed: int, rates: dict | None = None) -> list[dict]:
        return [
            {"choice": choice, "data": name, "seconds": seconds, "lr": lr, "seed": seed}
            for name, choice in product(images, CHOICES)
            for lr in ([rates[choice, name]] if rates else RATES)
        ]

    run_missing(output, runs(0), measure)
    rates = better_rates(read(output))
    for seed in range(1, seeds):
        run_missing(output, runs(seed, rates), measure)
    show(output)


def better_rates(records: list[dict]) -> dict[tuple[str, str], float]:
    """For each choice and set the rate with the smaller kernel distance after the most calls."""
    first = sorted(
        (record for record in records if record["seed"] == 0),
        key=lambda record: -record[f"kernel_{CALLS[-1]}"],
    )
    return {(record["choice"], record["data"]): record["lr"] for record in first}  # the last wins


def show(output: str | Path) -> None:
    """A table of the better rate of each choice, best first."""
    records = read(output)
    rates = better_rates(records)
    kept = [r for r in records if r["lr"] == rates[r["choice"], r["data"]]]
    found = [medians(kept, ("data", "choice"), f"kernel_{n}") for n in CALLS]
    order = sorted(found[-1], key=lambda key: (key[0], found[-1][key][1]))
    rows = [
        [*key, f"{rates[key[1], key[0]]:g}", *(with_range(f[key], ".2f") for f in found)]
        for key in order
    ]
    print_table(["data", "prediction", "lr", *(f"{n} calls" for n in CALLS)], rows)
    print("kernel distance: median (lowest to highest) of the seeds")
