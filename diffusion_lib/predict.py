"""Make new images with a trained model: python -m diffusion_lib.predict MODEL"""

import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from diffusion_lib.cli import Parser, check_name, run
from diffusion_lib.config import BUNDLED_NAMES, PredictConfig
from diffusion_lib.errors import InputError


def build_parser() -> Parser:
    parser = Parser(
        prog="predict",
        description="Make new images with a trained model.",
        examples=(
            "python -m diffusion_lib.predict faces --num_images 64 --grid",
            "python -m diffusion_lib.predict knees.pth --output out --strip",
            "python -m diffusion_lib.predict knees.pth --sampler ddpm --seed 0",
        ),
    )
    parser.add_argument(
        "MODEL",
        help=f"a .pth of train or of the original project, or a bundled model: {BUNDLED_NAMES}",
    )
    parser.add_options(PredictConfig)
    return parser


def main(arguments: list[str] | None = None) -> None:
    chosen = vars(build_parser().parse_args(arguments))
    model = chosen.pop("MODEL")
    config = PredictConfig(**chosen)
    check_name("--name", config.name, "--output")
    if "guidance" in chosen and not config.label:
        raise InputError("--guidance shows a label more clearly: say which, by --label")

    import torch

    from diffusion_lib.devices import find_device, find_precision, prepare
    from diffusion_lib.diffusion import GaussianDiffusion
    from diffusion_lib.files import save_new
    from diffusion_lib.labels import choose_labels
    from diffusion_lib.plots import denoising_strip, save_grid, save_image, save_rows
    from diffusion_lib.sampling import sample_batches, trajectory

    device = prepare(find_device(config.device))
    diffusion = GaussianDiffusion.load(model, device)
    diffusion.precision = find_precision(config.precision, device)
    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    seed = torch.seed() % 2**32 if config.seed < 0 else config.seed
    how = {"sampler": config.sampler, "steps": config.steps, "seed": seed}
    how |= {"clip": config.clip, "spacing": config.spacing, "guidance": config.guidance}
    rows = choose_labels(config.label, diffusion.classes)
    each = config.num_images or (8 if len(rows) > 1 else 1)
    labels = [row for row in rows for _ in range(each)]
    count = len(labels) or each

    number = first_free_number(folder, config.name)
    images, paths = [], []
    for batch in sample_batches(
        diffusion,
        count,
        batch_size=config.batch_size,
        progress=True,
        labels=labels or None,
        **how,
    ):
        for image in batch:
            numbers = itertools.count(number + len(paths))
            free = (folder / f"{config.name}{n}.{config.format}" for n in numbers)
            paths.append(save_new(partial(save_image, image), free))
        images += [batch] if config.grid or rows else []
    for row, start in zip(rows or [f"seed {seed}"], range(0, count, each), strict=True):
        first, *others = paths[start : start + each]
        print(f"{row}: {first}{f' ... {others[-1].name}' if others else ''}")
    if rows:
        print(f"seed {seed}, guidance {config.guidance:g}")
    if images:
        pictures = torch.cat(images)
        if rows:
            save = partial(save_rows, dict(zip(rows, pictures.split(each), strict=True)))
        else:
            save = partial(save_grid, pictures)
        path = save_new(save, free_paths(folder / f"{config.name}_grid.{config.format}"))
        print(f"all of them in one picture: {path}")
    if config.strip:
        some = min(config.batch_size, count)
        noise, steps = trajectory(diffusion, some, labels=labels[:some] or None, **how)
        free = free_paths(folder / f"{config.name}_strip.png")
        path = save_new(denoising_strip(noise, steps).save, free)
        print(f"from noise to the first image: {path}")


def first_free_number(folder: Path, name: str) -> int:
    """One more than the highest number of an image NAME0, NAME1, ... that is there already."""
    taken = [
        path.stem.removeprefix(name) for path in folder.iterdir() if path.stem.startswith(name)
    ]
    return max((int(number) + 1 for number in taken if number.isdecimal()), default=0)


def free_paths(path: Path) -> Iterator[Path]:
    """The path itself, and then with a number behind its name."""
    yield path
    for number in itertools.count(1):
        yield path.with_stem(f"{path.stem}{number}")


if __name__ == "__main__":
    sys.exit(run(main, "predict"))
