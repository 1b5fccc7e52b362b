"""Train a diffusion model on a folder of images: python -m diffusion_lib.train NAME PATH

On several GPUs: torchrun --nproc-per-node 4 -m diffusion_lib.train NAME PATH
"""

import glob
import sys
import warnings
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from diffusion_lib.cli import Parser, check_name, run
from diffusion_lib.config import BUNDLED_NAMES, FLOW, FREE_ON_RESUME, TrainConfig
from diffusion_lib.errors import InputError
from diffusion_lib.recipe import CHOSEN, as_flags, recipe

LONG = 10  # minutes on a CPU, from which on a shorter run is offered


def build_parser() -> Parser:
    parser = Parser(
        prog="train",
        description="Train a diffusion model on a folder of images.",
        examples=(
            "python -m diffusion_lib.train portraits faces --image_size 16 --minutes 2",
            "python -m diffusion_lib.train knees path/to/images --image_size 128 --dry_run",
            "python -m diffusion_lib.train knees path/to/images --resume --epochs 200",
        ),
    )
    parser.add_argument("NAME", help="name of the model: its final weights are saved as NAME.pth")
    parser.add_argument(
        "PATH", help=f"a folder of images, a .zip, or a bundled set: {BUNDLED_NAMES}"
    )
    run = parser.add_options(TrainConfig, by_recipe=CHOSEN)
    run.add_argument(
        "--flow",
        action="store_true",
        default=False,
        help="flow matching: " + " ".join(f"--{name} {value}" for name, value in FLOW.items()),
    )
    run.add_argument(
        "--folder", default=".", metavar="NAME", help="where to save everything (default: .)"
    )
    run.add_argument(
        "--resume",
        action="store_true",
        default=False,
        help="resume the run in autosave.pth with its settings",
    )
    run.add_argument(
        "--force", action="store_true", default=False, help="start again, replacing an earlier run"
    )
    run.add_argument(
        "--dry_run",
        action="store_true",
        default=False,
        help="print the settings, the memory and the time of the run without training",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    chosen = vars(build_parser().parse_args(arguments))
    name, path, folder, resume, force, dry_run = (
        chosen.pop(key) for key in ("NAME", "PATH", "folder", "resume", "force", "dry_run")
    )
    chosen = {**(FLOW if chosen.pop("flow") else {}), **chosen}
    check_name("NAME", name, "--folder")
    if name == "autosave":
        raise InputError("NAME must not be 'autosave': the run to resume is saved as autosave.pth")
    config = TrainConfig(**chosen)

    import torch
    from tqdm.auto import tqdm

    from diffusion_lib import distributed
    from diffusion_lib.devices import fast_bfloat16, find_device
    from diffusion_lib.diffusion import build
    from diffusion_lib.images.cache import load_image_set
    from diffusion_lib.images.labels import read_labels
    from diffusion_lib.labels import shortened
    from diffusion_lib.recording import record
    from diffusion_lib.resuming import check_weights_of_run
    from diffusion_lib.training import Trainer

    checkpoint = checkpoint_to_resume(name, Path(folder), resume, force)
    if checkpoint:
        config = resumed_config(checkpoint["training"]["config"], chosen)
        check_weights_of_run(config, checkpoint)
    device = find_device(config.device)
    by_recipe = {}
    if not checkpoint:
        bfloat16 = device.type == "cpu" and fast_bfloat16()
        by_recipe = recipe(device.type, bfloat16, chosen, torch.get_num_threads())
        config = replace(config, **by_recipe)
    build(config, channels=1)  # so that a wrong setting shows before all images are read
    distributed.init(device)
    first = distributed.rank() == 0  # the process that prints
    read = partial(load_image_set, path, config.image_size, config.channels, config.fit)
    pixels, files, *_ = distributed.rank_zero_first(
        partial(read, config.workers or None, progress=first)
    )
    labels, classes = read_labels(path, files, config.labels) if config.labels else (None, {})
    diffusion = build(config, pixels.shape[1], classes)
    if first:
        warn_if_signal_remains(diffusion.schedule)
    trainer = Trainer(diffusion, pixels, config, labels)
    if checkpoint:
        trainer.restore(checkpoint)
    if trainer.step >= trainer.steps:
        raise InputError(
            f"all {config.most_epochs} epochs of {name!r} are done: choose more --epochs"
        )
    if config.minutes and trainer.seconds >= 60 * config.minutes:
        raise InputError(
            f"all {config.minutes:g} minutes of {name!r} are over: choose more --minutes"
        )
    if dry_run:
        print_dry_run(trainer)
        distributed.cleanup()
        return
    if first:
        held_out = len(trainer.batches.unseen)
        print(
            f"{len(pixels):,} images of {config.image_size}x{config.image_size}, "
            f"{'grey' if pixels.shape[1] == 1 else 'colour'}"
            f"{f', {held_out} of them held out' if held_out else ''}; a network of "
            f"{sum(weights.numel() for weights in trainer.weights) / 1e6:.1f} million weights, "
            f"on {device}"
        )
        for column, names in classes.items():
            print(f"{len(names)} classes by {column}: {shortened(names)}")
        if by_recipe:
            print(f"by the recipe: {as_flags(by_recipe)}")
        if device.type == "cpu" and distributed.world_size() == 1:
            print_cost(trainer)
    total = None if config.minutes else trainer.steps
    bar = tqdm(total=total, initial=trainer.step, unit="step", desc=name, disable=not first)

    def move_bar() -> None:
        if trainer.steps < trainer.most_steps:  # a run with a time limit, after its first step
            bar.total = trainer.steps
        bar.update(trainer.step - bar.n)

    trainer.after_step = move_bar
    with bar:
        for report in record(trainer, name, folder):
            bar.set_postfix(epoch=report.epoch, loss=f"{report.loss:.4f}", refresh=False)
    if first:
        print(f"the model is {Path(folder, name)}.pth")
        if trainer.step < trainer.steps:
            print(f"stopped after step {trainer.step} of {trainer.steps}: continue with --resume")
    distributed.cleanup()


def print_cost(trainer) -> None:
    """Print what a run will take, how to make it shorter, and whether it may end in copies."""
    from diffusion_lib.copying import FEW, outlook
    from diffusion_lib.estimate import memory_bytes, seconds_left, seconds_per_step

    images, left = len(trainer.batches.kept), trainer.steps - trainer.step
    minutes = trainer.config.minutes and trainer.config.minutes - trainer.seconds / 60
    memory = f"about {memory_bytes(trainer) / 1e9:.2g} GB of memory"
    if minutes:
        print(f"{minutes:.3g} minutes, {memory}")
        if images > FEW:
            return
    seconds = seconds_left(trainer, seconds_per_step(trainer))
    if minutes:
        left = min(left, 60 * minutes / seconds * left)
    else:
        print(f"{left:,} steps and their pictures: {duration(seconds / 60)}, {memory}")
        if seconds > 60 * LONG:
            print(f"--minutes {LONG} makes the best of {LONG} minutes")
    epochs = (trainer.step + left) / trainer.steps_per_epoch
    if likely := outlook(images, epochs):
        print(likely)


def duration(minutes: float) -> str:
    """about 3 h 20 min, or about 40 s"""
    if minutes < 1:
        return f"about {max(10, 10 * round(6 * minutes))} s"
    hours, minutes = divmod(round(minutes), 60)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min"


def print_dry_run(trainer) -> None:
    """Print what a run would do and need. Some steps are run, to time them."""
    from diffusion_lib.compiling import flops
    from diffusion_lib.distributed import rank, world_size
    from diffusion_lib.estimate import memory_bytes, seconds_left, seconds_per_step

    config, pixels = trainer.config, trainer.batches.pixels
    memory, left = memory_bytes(trainer), trainer.steps - trainer.step
    operations = flops(trainer.diffusion.network, pixels.shape[1:])
    each = seconds_per_step(trainer)
    if rank() > 0:
        return
    steps = "" if config.minutes else f"{left:,}: "
    minutes = seconds_left(trainer, each) / 60
    time = f"{config.minutes:g} min" if config.minutes else duration(minutes)
    precision = str(trainer.diffusion.precision).removeprefix("torch.")
    processes = f", {world_size()} processes" if world_size() > 1 else ""
    print(
        *(
            f"{option:<20}{'none' if value == '' else value}"
            for option, value in asdict(config).items()
        ),
        "",
        f"{'images':<20}{len(pixels):,} of shape {tuple(pixels.shape[1:])}",
        f"{'network':<20}{sum(weights.numel() for weights in trainer.weights) / 1e6:.1f} million "
        f"weights; {operations / 1e9:.2f} GFLOP forward an image",
        f"{'device':<20}{trainer.device} in {precision}{processes}",
        f"{'memory':<20}about {memory / 1e9:.2g} GB",
        f"{'steps':<20}{steps}{trainer.steps_per_epoch:,} an epoch",
        f"{'time':<20}{time}, at {each:.3g} s a step, with the samples after each epoch",
        "a dry run: nothing is saved, except decoded images in the cache",
        sep="\n",
    )


def checkpoint_to_resume(name: str, folder: Path, resume: bool, force: bool) -> dict:
    """The checkpoint to resume from, or {} for a fresh start, if nothing is lost by it.

    Raises:
        InputError: there is nothing to resume, or something that would be lost.
    """
    from diffusion_lib.files import check_training, load_checkpoint
    from diffusion_lib.recording import AUTOSAVE

    autosave, final = folder / AUTOSAVE, folder / f"{name}.pth"
    if force and resume:
        raise InputError("--resume continues a run and --force replaces it: choose one of them")
    if force:
        return {}
    checkpoint = load_checkpoint(autosave) if resume or autosave.exists() else {}
    run = check_training(checkpoint, autosave) if checkpoint else {"name": None}
    if resume:
        if run["name"] != name:
            raise InputError(f"{autosave} holds the run {run['name']!r}, not {name!r}")
        return checkpoint
    pictures = sorted((folder / "out").glob(f"{glob.escape(name)}_epoch_*.png"))
    if final.exists() or pictures:
        raise InputError(
            f"{final if final.exists() else pictures[0]} exists already: choose another name, or "
            "add --resume to train it further, or --force to replace it"
        )
    if checkpoint and run["step"] < run["steps"]:
        raise InputError(
            f"{autosave} holds the unfinished run {run['name']!r}: continue it with --resume, "
            "choose another --folder, or replace it with --force"
        )
    return {}


def resumed_config(settings: dict, chosen: dict) -> TrainConfig:
    """The settings of the run to resume, and the chosen ones that may change.

    Raises:
        InputError: a chosen setting differs from that of the run and may not change.
    """
    if settings.pop("continuous", False):
        raise InputError(
            "this run was trained with --continuous, which no longer exists: its model still works "
            "in predict and evaluate, but training cannot be resumed"
        )
    if "optimizer" not in settings:  # a run from when --minutes was of a session, not of the run
        settings["minutes"] = 0.0
    # An option that is newer than the run has its default.
    try:
        settings = asdict(TrainConfig(**settings))
    except (InputError, TypeError) as error:
        raise InputError(f"the settings of the run to resume cannot be read: {error}") from error
    for option, value in chosen.items():
        if option not in FREE_ON_RESUME and value != settings[option]:
            raise InputError(
                f"--{option} {value} cannot be changed by --resume: the run has {settings[option]}"
            )
    free = {option: value for option, value in chosen.items() if option in FREE_ON_RESUME}
    # A device belongs to one session: it is not taken over.
    return TrainConfig(**{**settings, "device": "auto", **free})


def warn_if_signal_remains(schedule) -> None:
    """Warn if too much of the image is left at the last timestep to start sampling from noise."""
    left = schedule.signal(schedule.timesteps - 1)
    if left > 0.05:
        warnings.warn(
            f"the last of {schedule.timesteps} timesteps still shows {left:.0%} of the image, but "
            "sampling starts from pure noise: take more --timesteps, a larger --end, or "
            "--beta_schedule cosine or --zero_terminal_snr",
            stacklevel=2,
        )


if __name__ == "__main__":
    sys.exit(run(main, "train"))
