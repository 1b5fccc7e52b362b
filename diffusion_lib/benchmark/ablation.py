"""What is each choice of the recipe worth? The same seconds with all of them, and without one."""

from diffusion_lib.benchmark.quality import IMAGE_SIZE, Judge, draw
from diffusion_lib.benchmark.records import append, read
from diffusion_lib.images.cache import load_images

CHOICES = {
    "the recipe": {},
    "predict v": {"prediction": "v"},
    "linear schedule": {"beta_schedule": "linear", "shift": 1.0},
    "no shift of the noise": {"shift": 1.0},
    "two blocks a level": {"blocks": 2},
    "folded pixels": {"patch": 2},
    "a wider network": {"width": 32},
    "batches of 64": {"batch_size": 64},
    "half the learning rate": {"lr": 2e-3},
    "weights by min-SNR": {"min_snr": 5.0},
    "timesteps in between": {"continuous": True},
    "no average of weights": {"ema": 0.0},
}


def measure(path: str, data: str, seconds: int, seeds: int) -> None:
    """Do all runs that the file at `path` does not hold yet, and add them to it."""
    done = {(record["choice"], record["seed"]) for record in read(path)}
    pixels, judge = load_images(data, IMAGE_SIZE), None
    for seed in range(seeds):
        for choice, changes in CHOICES.items():
            if (choice, seed) in done:
                continue
            judge = judge or Judge(pixels)
            samples = draw("ours", pixels, seconds, seed, **changes)
            record = {"choice": choice, "data": data, "seconds": seconds, "seed": seed}
            append(path, {**record, **judge.distances(samples)})
            print(choice, seed, flush=True)
