"""Make new images with a trained model: python -m diffusion_lib.predict MODEL"""

import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_lib.cli import Parser, check_name, run
from diffusion_lib.config import BUNDLED_NAMES, PredictConfig
from diffusion_lib.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from diffusion_lib.diffusion import GaussianDiffusion
    from diffusion_lib.editing import Edit


def build_parser() -> Parser:
    parser = Parser(
        prog="predict",
        description="Make new images with a trained model.",
        examples=(
            "python -m diffusion_lib.predict faces --num_images 64 --grid --gif",
            "python -m diffusion_lib.predict digits --label 7 --scale 8 --output out",
            "python -m diffusion_lib.predict mine.pth --from sketch.png --strength 0.7 -i 8",
            "python -m diffusion_lib.predict mine.pth --from photo.jpg --inpaint mask.png -i 8",
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
    check_together(config, set(chosen))

    import torch

    from diffusion_lib.devices import find_device, find_precision, prepare
    from diffusion_lib.diffusion import GaussianDiffusion
    from diffusion_lib.labels import choose_labels
    from diffusion_lib.sampling import planned_steps, sample_batches, trajectory

    device = prepare(find_device(config.device))
    diffusion = GaussianDiffusion.load(model, device)
    diffusion.precision = find_precision(config.precision, device)
    edit = read_edit(config, diffusion) if config.from_ else None
    seed = torch.seed() % 2**32 if config.seed < 0 else config.seed
    how = {"sampler": config.sampler, "steps": config.steps, "seed": seed, "clip": config.clip}
    how |= {"spacing": config.spacing, "guidance": config.guidance, "edit": edit}
    rows = choose_labels(config.label, diffusion.classes)
    each = config.num_images or (8 if len(rows) > 1 else 1)
    labels = [row for row in rows for _ in range(each)] or None
    count = len(labels) if labels else each

    folder = Path(config.output)
    folder.mkdir(parents=True, exist_ok=True)
    batches = sample_batches(
        diffusion, count, batch_size=config.batch_size, progress=True, labels=labels, **how
    )
    if config.only_grid:
        images = list(batches)
    else:
        images, paths = save_images(batches, folder, config, keep=config.grid or bool(rows))
        for row, start in zip(rows or [f"seed {seed}"], range(0, count, each), strict=True):
            first, *others = paths[start : start + each]
            print(f"{row}: {first}{f' ... {others[-1].name}' if others else ''}")
    steps = planned_steps(config.sampler, config.steps, diffusion.schedule.timesteps, edit)
    sampler = "inpaint" if config.inpaint else config.sampler
    with_seed = f"seed {seed}, " if rows or config.only_grid else ""
    guided = f"guidance {config.guidance:g}, " if rows else ""
    size = diffusion.image_shape[1]
    print(f"{with_seed}{guided}{size}x{size} pixels, in {steps} steps of {sampler}")
    if images:
        save_together(torch.cat(images), rows, folder, config)
    if config.strip or config.gif:
        some = min(config.batch_size, count)
        save_steps(
            *trajectory(diffusion, some, labels=labels and labels[:some], **how), folder, config
        )


def check_together(config: PredictConfig, chosen: set[str]) -> None:
    """Raise InputError if one option was given without another that it needs.

    chosen: the names of the options that were given.
    """
    if "guidance" in chosen and not config.label:
        raise InputError("--guidance shows a label more clearly: say which, by --label")
    if not config.from_ and (config.inpaint or "strength" in chosen):
        raise InputError("--inpaint and --strength change an image: say which, by --from")
    if config.inpaint and "sampler" in chosen:
        raise InputError("--inpaint is a sampler of its own: leave --sampler out")


def read_edit(config: PredictConfig, diffusion: "GaussianDiffusion") -> "Edit":
    """The image to start from, and the mask.

    Raises:
        InputError: a file that is no image, or a mask without white.
    """
    from diffusion_lib.editing import Edit
    from diffusion_lib.images.cache import load_image
    from diffusion_lib.images.pixels import to_images

    channels, size, _ = diffusion.image_shape
    image = to_images(load_image(config.from_, size, channels, config.fit))
    if not config.inpaint:
        return Edit(image, 0.6 if config.strength is None else config.strength)
    white = load_image(config.inpaint, size, 1, config.fit) > 127
    if not white.any():
        raise InputError(f"{config.inpaint} has no white, which says where to draw")
    return Edit(image, 1.0 if config.strength is None else config.strength, 1 - white.float())


def save_images(
    batches: Iterator["Tensor"], folder: Path, config: PredictConfig, keep: bool
) -> tuple[list["Tensor"], list[Path]]:
    """Write every image to a file of its own. Returns the batches, if they are to be kept, and
    the paths.
    """
    from diffusion_lib.files import save_new
    from diffusion_lib.plots import save_image

    number = first_free_number(folder, config.name)
    images, paths = [], []
    for batch in batches:
        for image in batch:
            numbers = itertools.count(number + len(paths))
            free = (folder / f"{config.name}{n}.{config.format}" for n in numbers)
            paths.append(save_new(partial(save_image, image, scale=config.scale), free))
        images += [batch] if keep else []
    return images, paths


def save_together(pictures: "Tensor", rows: list[str], folder: Path, config: PredictConfig) -> None:
    """Write all images as one picture, with a row for each label."""
    from diffusion_lib.files import save_new
    from diffusion_lib.plots import save_grid, save_rows

    if rows:
        each = len(pictures) // len(rows)
        save = partial(save_rows, dict(zip(rows, pictures.split(each), strict=True)))
    else:
        save = partial(save_grid, pictures)
    path = save_new(save, free_paths(folder / f"{config.name}_grid.{config.format}"))
    print(f"all of them in one picture: {path}")


def save_steps(noise: "Tensor", steps: list, folder: Path, config: PredictConfig) -> None:
    """Write how the first images emerged, as a picture and as a film.

    noise, steps: of `trajectory`.
    """
    from diffusion_lib.files import save_new
    from diffusion_lib.plots import denoising_film, denoising_strip

    if config.strip:
        free = free_paths(folder / f"{config.name}_strip.png")
        print(
            f"from noise to the first image: {save_new(denoising_strip(noise, steps).save, free)}"
        )
    if config.gif:
        save = partial(denoising_film(noise, steps).save, format="gif")
        path = save_new(save, free_paths(folder / f"{config.name}.gif"))
        print(f"from noise to the first images, as a film: {path}")


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
