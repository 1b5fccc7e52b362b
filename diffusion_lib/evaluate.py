"""How good is a trained model? python -m diffusion_lib.evaluate MODEL PATH

It draws samples and compares them with the real images in PATH, which should be those that the
model was trained on. Beside each number stands the same one for other real images in place of the
samples: about the best that a model can reach.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lib.cli import Parser, run
from diffusion_lib.config import BUNDLED_NAMES, EvaluateConfig
from diffusion_lib.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_lib.diffusion import GaussianDiffusion
    from diffusion_lib.images.labels import Labels

FEWEST = 8  # real images: two halves of four, because precision needs more than three
LOSS_IMAGES = 500  # of the real images, for the loss by timestep


def build_parser() -> Parser:
    parser = Parser(
        prog="evaluate",
        description="Compare a model's samples with real images.",
        examples=(
            "python -m diffusion_lib.evaluate faces faces --num_images 500",
            "python -m diffusion_lib.evaluate knees.pth path/to/images --output knees.json",
            "python -m diffusion_lib.evaluate knees.pth path/to/images --held_out path/to/others",
        ),
    )
    parser.add_argument(
        "MODEL",
        help=f"a .pth of train or of the original project, or a bundled model: {BUNDLED_NAMES}",
    )
    parser.add_argument(
        "PATH",
        help=f"the images it was trained on: a folder, a .zip, or a bundled set: {BUNDLED_NAMES}",
    )
    comparison = parser.add_options(EvaluateConfig)
    comparison.add_argument(
        "--held_out", default=None, metavar="PATH", help="similar images that it was not trained on"
    )
    comparison.add_argument(
        "-o", "--output", default=None, metavar="FILE", help="also save all numbers as .json"
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

    from diffusion_lib.devices import find_device, find_precision, prepare
    from diffusion_lib.diffusion import GaussianDiffusion
    from diffusion_lib.images.cache import load_image_set, load_images
    from diffusion_lib.images.labels import read_labels
    from diffusion_lib.spacing import check_steps

    device = prepare(find_device(config.device))
    diffusion = GaussianDiffusion.load(model, device)
    diffusion.precision = find_precision(config.precision, device)
    if config.steps is not None:
        check_steps(config.steps, diffusion.schedule.timesteps)
    channels, size, _ = diffusion.image_shape
    real, files, *_ = load_image_set(path, size, channels, config.fit, progress=True)
    if len(real) < FEWEST:
        raise InputError(f"evaluation needs at least {FEWEST} images, but {path} has {len(real)}")
    unseen = None
    if held_out is not None:
        unseen = load_images(held_out, size, channels, config.fit, progress=True)
    labels = None
    if "guidance" in chosen and not diffusion.classes:
        raise InputError(f"{model} was trained without labels: leave --guidance out")
    if diffusion.classes:
        found = read_labels(path, files, ",".join(diffusion.classes))
        labels = draw_labels(found, diffusion.classes, config)
    if output is not None:
        Path(output).parent.mkdir(parents=True, exist_ok=True)

    numbers = {"model": model, "path": path, "held_out": held_out}
    numbers |= measure(diffusion, real, unseen, config, labels)
    print(table(numbers))
    if output is not None:
        Path(output).write_text(json.dumps(numbers, indent=2) + "\n")
        print(f"all numbers: {output}")


def draw_labels(found: "Labels", classes: dict[str, list[str]], config: EvaluateConfig) -> "Tensor":
    """Labels for the samples, drawn from those of the real images, (num_images, columns).

    Raises:
        InputError: the images have other classes than the model.
    """
    import torch

    if found.names != classes:
        raise InputError(
            f"the images have other classes of {', '.join(classes)} than the model was trained with"
        )
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randint(len(found.values), (config.num_images,), generator=generator)
    return found.values[chosen]


def measure(
    diffusion: "GaussianDiffusion",
    real: "Tensor",
    unseen: "Tensor | None",
    config: EvaluateConfig,
    labels: "Tensor | None" = None,
) -> dict:
    """Draw samples, and compare them with real images.

    real: the images it was trained on, uint8, (N, C, H, W).
    unseen: real images it was not trained on, uint8, (M, C, H, W), or None.
    labels: of the samples, for a model with classes.

    Returns:
        All that `table` shows, in plain values.

    Raises:
        InputError: features that cannot be loaded, or samples that are not finite.
    """
    import torch
    from tqdm.auto import tqdm

    from diffusion_lib import metrics
    from diffusion_lib.features import FEATURES, FeatureStatistics
    from diffusion_lib.images.pixels import to_images
    from diffusion_lib.samplers import default_steps

    features = FEATURES[config.features](diffusion.device)
    steps = config.steps or default_steps(config.sampler, diffusion.schedule.timesteps)
    all_samples, some_samples, half, other_half, all_real = (
        FeatureStatistics(seed=config.seed) for _ in range(5)
    )

    # 1. Samples. Half as many as there are real images are kept apart: distances depend on the
    # number of images, so samples and the second half of the real images must be equally many.
    count = min(config.num_images, len(real) // 2)
    pixels = torch.empty(config.num_images, *real.shape[1:], dtype=torch.uint8)
    first, seconds = 0, 0.0
    for batch, elapsed in timed_batches(diffusion, steps, config, labels):
        seconds += elapsed
        pixels[first : first + len(batch)] = batch
        seen = features(to_images(batch))
        all_samples.add(seen)
        some_samples.add(seen[: max(0, count - first)])
        first += len(batch)

    # 2. Real images in random order: one half first, then the other
    order = torch.randperm(len(real), generator=torch.Generator().manual_seed(config.seed))
    batches = range(0, len(order), config.batch_size)
    for first in tqdm(batches, desc="features of real images", unit="batch"):
        seen = features(to_images(real[order[first : first + config.batch_size]]))
        all_real.add(seen)
        half.add(seen[: max(0, count - first)])
        other_half.add(seen[max(0, count - first) : max(0, 2 * count - first)])

    # 3. Distances, copies and the loss
    subset_size = min(500, count // 2)
    copies = metrics.memorization(pixels, real, unseen, diffusion.device, config.seed)

    def losses(images: torch.Tensor) -> list[dict]:
        generator = torch.Generator().manual_seed(config.seed)
        chosen = images[torch.randperm(len(images), generator=generator)[:LOSS_IMAGES]]
        bins = min(10, diffusion.schedule.timesteps)
        found = metrics.loss_by_timestep(diffusion, chosen, bins, config.batch_size, config.seed)
        return [each._asdict() for each in found]

    return {
        "real_images": len(real),
        "held_out_images": None if unseen is None else len(unseen),
        "image_shape": list(real.shape[1:]),
        "num_images": config.num_images,
        "sampler": config.sampler,
        "steps": steps,
        "guidance": None if labels is None else config.guidance,
        "seed": config.seed,
        "seconds": seconds,
        "device": str(diffusion.device),
        "precision": str(diffusion.precision).removeprefix("torch."),
        "features": config.features,
        "compared": count,
        "samples": metrics.compare(some_samples, half, subset_size),
        "real": metrics.compare(other_half, half, subset_size),
        "frechet_distance_all": metrics.frechet_distance(all_samples, all_real),
        "nearest": copies._asdict(),
        "prediction": diffusion.prediction,
        "loss": losses(real),
        "held_out_loss": None if unseen is None else losses(unseen),
    }


def timed_batches(
    diffusion: "GaussianDiffusion", steps: int, config: EvaluateConfig, labels: "Tensor | None"
) -> "Iterator[tuple[Tensor, float]]":
    """Batches of samples, uint8, (n, C, H, W), each with the seconds that it took.

    They are rounded to 8 bits like the real images, because rounding alone changes features (Parmar
    et al. 2022, arXiv 2104.11222).
    """
    from diffusion_lib.images.pixels import to_pixels
    from diffusion_lib.sampling import sample_batches

    how = {"sampler": config.sampler, "steps": steps, "seed": config.seed}
    how |= {"batch_size": config.batch_size, "progress": True}
    how |= {"labels": labels, "guidance": config.guidance}
    started = time.perf_counter()
    for batch in sample_batches(diffusion, config.num_images, **how):
        elapsed = time.perf_counter() - started
        if not batch.isfinite().all():
            raise InputError("the model's samples are not finite: its training has diverged")
        yield to_pixels(batch), elapsed
        started = time.perf_counter()


def table(numbers: dict) -> str:
    """The numbers of `measure` as a text table."""
    ours, theirs, near = (numbers[key] for key in ("samples", "real", "nearest"))
    held_out = numbers["held_out_images"]
    channels, size, _ = numbers["image_shape"]
    count, total = numbers["num_images"], numbers["real_images"]
    rate = count / numbers["seconds"]
    guided = "" if numbers["guidance"] is None else f", guidance {numbers['guidance']:g}"
    lines = [
        f"real images   {total} of {numbers['path']}, {size}x{size}, "
        f"{'grey' if channels == 1 else 'colour'}",
        f"samples       {count} of {numbers['model']}, by {numbers['sampler']} in "
        f"{numbers['steps']} steps, seed {numbers['seed']}{guided}",
        f"sampling      {numbers['seconds']:.1f} s on {numbers['device']} in "
        f"{numbers['precision']}, {rate:.1f} images/s",
        f"features      {numbers['features']}; {numbers['compared']} samples, and as many other "
        f"real images, against {numbers['compared']} real images",
        "",
        row("", "samples", "real"),
        row("Frechet distance", *(f"{x['frechet_distance']:.2f}" for x in (ours, theirs))),
        row(
            "kernel distance x 1000",
            *(f"{1000 * x['kernel_distance']:.2f}" for x in (ours, theirs)),
        ),
        row("  standard deviation", *(f"{1000 * x['kernel_std']:.2f}" for x in (ours, theirs))),
        row("precision", *(f"{x['precision']:.3f}" for x in (ours, theirs))),
        row("recall", *(f"{x['recall']:.3f}" for x in (ours, theirs))),
        row(f"Frechet distance, {count} to all {total}", f"{numbers['frechet_distance_all']:.2f}"),
        "",
        row("nearest training image", "samples", "held out" if held_out else "training"),
        row("  median distance", f"{near['samples']:.4f}", f"{near['held_out']:.4f}"),
        row("  at most the nearest 1%", f"{near['copies']:.1%}", "1.0%"),
        row("  half as far as any other", f"{near['singled_out']:.1%}"),
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
