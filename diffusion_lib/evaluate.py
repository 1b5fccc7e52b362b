"""How good is a trained model? python -m diffusion_lib.evaluate MODEL PATH

It draws samples, and compares them with the real images of PATH, which should be those that it was
trained on. Beside each number stands the same one for real images in place of the samples: the best
that one can hope for. No number is worth anything alone.
"""

import json
import sys
import time
from pathlib import Path

from diffusion_lib.cli import Parser, run
from diffusion_lib.config import EvaluateConfig
from diffusion_lib.errors import InputError

FEWEST = 8  # real images: two halves, in which each has three neighbours
LOSS_IMAGES = 500  # so many meet every noise level


def build_parser() -> Parser:
    parser = Parser(prog="evaluate", description="Compare a model's samples with real images.")
    parser.add_argument(
        "MODEL",
        help="a .pth of train or of the original project, or faces, digits or brains (bundled)",
    )
    parser.add_argument(
        "PATH", help="the images it was trained on: a folder, a .zip, or faces, digits or brains"
    )
    parser.add_options(EvaluateConfig)
    parser.add_argument(
        "--held_out", default=None, metavar="PATH", help="images of the kind that it never saw"
    )
    parser.add_argument(
        "-o", "--output", default=None, metavar="FILE", help="also write all numbers, as .json"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    chosen = vars(build_parser().parse_args(arguments))
    model, path, held_out, output = (
        chosen.pop(key) for key in ("MODEL", "PATH", "held_out", "output")
    )
    config = EvaluateConfig(**chosen)
    if output is not None and Path(output).exists():  # before the work, not after it
        raise InputError(f"{output} exists already: choose another name for --output")

    from diffusion_lib.diffusion import GaussianDiffusion
    from diffusion_lib.images.cache import load_images
    from diffusion_lib.training import find_device

    device = find_device(config.device)
    diffusion = GaussianDiffusion.load(model, device)
    channels, size, _ = diffusion.image_shape
    timesteps = diffusion.schedule.timesteps
    if config.steps > timesteps:
        raise InputError(f"steps must be at most timesteps, {timesteps}, not {config.steps}")
    real = load_images(path, size, channels, config.fit, progress=True)
    if len(real) < FEWEST:
        raise InputError(
            f"an evaluation needs at least {FEWEST} images, but {path} has {len(real)}"
        )
    unseen = None
    if held_out is not None:
        unseen = load_images(held_out, size, channels, config.fit, progress=True)
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)

    numbers = {"model": model, "path": path, "held_out": held_out}
    numbers |= measure(diffusion, real, unseen, config)
    print(table(numbers))
    if output is not None:
        Path(output).write_text(json.dumps(numbers, indent=2) + "\n")
        print(f"all numbers: {output}")


def measure(diffusion, real, unseen, config: EvaluateConfig) -> dict:
    """Draw samples, and compare them with real images.

    Args:
        diffusion: the model, on the device that is to do the work.
        real: the images it was trained on, uint8, shape (N, C, H, W).
        unseen: real images it was not trained on, uint8, shape (M, C, H, W), or None.

    Returns:
        All that `table` shows, in plain values.

    Raises:
        InputError: features that cannot be had, or samples that are not numbers.
    """
    import torch
    from tqdm.auto import tqdm

    from diffusion_lib import metrics
    from diffusion_lib.features import FEATURES, FeatureStatistics
    from diffusion_lib.images.pixels import to_images, to_pixels
    from diffusion_lib.samplers import sample_batches, usual_steps

    device = next(diffusion.parameters()).device
    features = FEATURES[config.features](device)
    steps = config.steps or usual_steps(config.sampler, diffusion.schedule.timesteps)
    statistics = {
        name: FeatureStatistics(seed=config.seed)
        for name in ("samples", "some samples", "half", "other half", "real")
    }

    # 1. Samples. As many of them as half of the real images are also kept apart: a distance falls
    # with the number, so what is to stand beside that of the two halves must be of as many.
    count = min(config.num_images, len(real) // 2)
    pixels = torch.empty(config.num_images, *real.shape[1:], dtype=torch.uint8)
    drawn, seconds, started = 0, 0.0, time.perf_counter()
    for batch in sample_batches(
        diffusion,
        config.num_images,
        sampler=config.sampler,
        steps=steps,
        batch_size=config.batch_size,
        seed=config.seed,
        progress=True,
    ):
        seconds += time.perf_counter() - started
        if not batch.isfinite().all():
            raise InputError("the model's samples are not numbers: its training has gone wrong")
        # 8 bits, like the real images: rounding alone changes features (Parmar et al. 2022,
        # arXiv 2104.11222)
        some = to_pixels(batch)
        pixels[drawn : drawn + len(some)] = some
        seen = features(to_images(some))
        statistics["samples"].add(seen)
        statistics["some samples"].add(seen[: max(0, count - drawn)])
        drawn += len(some)
        started = time.perf_counter()

    # 2. Real images, in a random order: the first are one half, those after them the other.
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(config.seed))
    batches = range(0, len(order), config.batch_size)
    for first in tqdm(batches, desc="looking at real images", unit="batch"):
        seen = features(to_images(real[order[first : first + config.batch_size]]))
        statistics["real"].add(seen)
        statistics["half"].add(seen[: max(0, count - first)])
        statistics["other half"].add(seen[max(0, count - first) : max(0, 2 * count - first)])

    # 3. How far apart are they?
    def compare(name: str) -> dict:
        ours, half = statistics[name], statistics["half"]
        kernel = metrics.kernel_distance(ours.rows, half.rows, subset_size=min(500, count // 2))
        precision, recall = metrics.precision_recall(half.rows, ours.rows)
        return {
            "frechet_distance": metrics.frechet_distance(ours, half),
            "kernel_distance": kernel.mean,
            "kernel_spread": kernel.spread,
            "precision": precision,
            "recall": recall,
        }

    # 4. Copies, and the loss
    copies = metrics.memorisation(pixels, real, unseen, device, config.seed)

    def losses(images) -> list[metrics.NoiseLevel]:
        generator = torch.Generator().manual_seed(config.seed)
        some = images[torch.randperm(len(images), generator=generator)[:LOSS_IMAGES]]
        levels = min(10, diffusion.schedule.timesteps)
        return metrics.loss_per_noise_level(diffusion, some, levels, config.batch_size, config.seed)

    return {
        "real_images": len(real),
        "held_out_images": None if unseen is None else len(unseen),
        "image_shape": list(real.shape[1:]),
        "num_images": config.num_images,
        "sampler": config.sampler,
        "steps": steps,
        "seed": config.seed,
        "seconds": seconds,
        "device": str(device),
        "features": config.features,
        "compared": count,
        "samples": compare("some samples"),
        "real": compare("other half"),
        "frechet_distance_all": metrics.frechet_distance(statistics["samples"], statistics["real"]),
        "nearest": copies._asdict(),
        "prediction": diffusion.prediction,
        "loss": [level._asdict() for level in losses(real)],
        "held_out_loss": None if unseen is None else [x._asdict() for x in losses(unseen)],
    }


def table(numbers: dict) -> str:
    """What `measure` found, for people to read."""
    ours, theirs, near = (numbers[key] for key in ("samples", "real", "nearest"))
    held_out = numbers["held_out_images"]
    channels, size, _ = numbers["image_shape"]
    count, total = numbers["num_images"], numbers["real_images"]
    rate = count / numbers["seconds"]
    lines = [
        f"real images   {total} of {numbers['path']}, {size}x{size}, "
        f"{'grey' if channels == 1 else 'colour'}",
        f"samples       {count} of {numbers['model']}, by {numbers['sampler']} in "
        f"{numbers['steps']} steps, seed {numbers['seed']}",
        f"sampling      {numbers['seconds']:.1f} s on {numbers['device']}, {rate:.1f} images/s",
        f"features      of {numbers['features']}; {numbers['compared']} images against "
        f"{numbers['compared']} real ones, other real ones for comparison",
        "",
        row("", "samples", "real"),
        row("Frechet distance", *(f"{x['frechet_distance']:.2f}" for x in (ours, theirs))),
        row(
            "kernel distance x 1000",
            *(f"{1000 * x['kernel_distance']:.2f}" for x in (ours, theirs)),
        ),
        row("  spread", *(f"{1000 * x['kernel_spread']:.2f}" for x in (ours, theirs))),
        row("precision", *(f"{x['precision']:.3f}" for x in (ours, theirs))),
        row("recall", *(f"{x['recall']:.3f}" for x in (ours, theirs))),
        row(f"Frechet distance, {count} to all {total}", f"{numbers['frechet_distance_all']:.2f}"),
        "",
        row("nearest training image", "samples", "held out" if held_out else "training"),
        row("  median distance", f"{near['samples']:.4f}", f"{near['held_out']:.4f}"),
        row("  at most the nearest 1%", f"{near['copies']:.1%}", "1.0%"),
        "",
        row(f"loss of {numbers['prediction']}", "training", "held out" if held_out else ""),
    ]
    unseen = [f"{level['loss']:.4f}" for level in numbers["held_out_loss"] or []]
    for i, level in enumerate(numbers["loss"]):
        name = f"  t = {level['first']}..{level['last']}"
        lines.append(row(name, f"{level['loss']:.4f}", *unseen[i : i + 1]))
    return "\n".join(lines)


def row(name: str, *columns: str) -> str:
    return (f"{name:<38}" + "".join(f"{column:>12}" for column in columns)).rstrip()


if __name__ == "__main__":
    sys.exit(run(main, "evaluate"))
