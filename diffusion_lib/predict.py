"""Make new images with a trained model: python -m diffusion_lib.predict MODEL"""

import sys
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

    first = number = first_free_number(folder, config.name)
    images = []
    for batch in sample_batches(
        diffusion,
        count,
        batch_size=config.batch_size,
        progress=True,
        labels=labels or None,
        **how,
    ):
        for image in batch:
            save_image(image, folder / f"{config.name}{number}.{config.format}")
            number += 1
        images += [batch] if config.grid or rows else []
    for row, start in zip(rows or [f"seed {seed}"], range(first, number, each), strict=True):
        last = f" ... {config.name}{start + each - 1}.{config.format}" if each > 1 else ""
        print(f"{row}: {folder / config.name}{start}.{config.format}{last}")
    if rows:
        print(f"seed {seed}, guidance {config.guidance:g}")
    if images:
        path = free_path(folder / f"{config.name}_grid.{config.format}")
        if rows:
            save_rows(dict(zip(rows, torch.cat(images).split(each), strict=True)), path)
        else:
            save_grid(torch.cat(images), path)
        print(f"all of them in one picture: {path}")
    if config.strip:
        path = free_path(folder / f"{config.name}_strip.png")
        some = min(config.batch_size, count)
        noise, steps = trajectory(diffusion, some, labels=labels[:some] or None, **how)
        denoising_strip(noise, steps).save(path)
        print(f"from noise to the first image: {path}")


def first_free_number(folder: Path, name: str) -> int:
    """One more than the highest number of an image NAME0, NAME1, ... that is there already."""
    taken = [
        path.stem.removeprefix(name) for path in folder.iterdir() if path.stem.startswith(name)
    ]
    return max((int(number) + 1 for number in taken if number.isdecimal()), default=0)


def free_path(path: Path) -> Path:
    """The path itself, or with a number behind its name if there is such a file already."""
    number, free = 1, path
    while free.exists():
        free = path.with_stem(f"{path.stem}{number}")
        number += 1
    return free


if __name__ == "__main__":
    sys.exit(run(main, "predict"))
