"""How good are samples after so many steps, for each sampler? All with the bundled portrait model.

The cost of a sample is the number of times that the network is called: heun calls it twice a step,
but for the last one.
"""

from diffusion_lib.benchmark.quality import Judge
from diffusion_lib.benchmark.records import append, read
from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.images.cache import load_images
from diffusion_lib.samplers import sample

SAMPLES = 250
STEPS = {
    "dpm_solver": (5, 10, 20),
    "dpm_solver_sde": (10, 20),
    "heun": (5, 10),
    "ddim": (10, 20, 50),
    "ddpm": (50, 1000),
}


def measure(path: str, seeds: int) -> None:
    """Do all runs that the file at `path` does not hold yet, and add them to it."""
    done = {(record["sampler"], record["steps"], record["seed"]) for record in read(path)}
    diffusion = GaussianDiffusion.load("faces")
    judge = Judge(load_images("faces", diffusion.image_shape[-1]))
    for seed in range(seeds):
        for sampler, numbers in STEPS.items():
            for steps in numbers:
                if (sampler, steps, seed) in done:
                    continue
                samples = sample(diffusion, SAMPLES, sampler=sampler, steps=steps, seed=seed)
                calls = 2 * steps - 1 if sampler == "heun" else steps
                record = {"sampler": sampler, "steps": steps, "calls": calls, "seed": seed}
                append(path, {**record, **judge.distances(samples)})
                print(sampler, steps, seed, flush=True)
