"""What a run leaves on disk: samples, denoising plots, a TensorBoard log, and checkpoints."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter

from diffusion_lib.data import to_pixels
from diffusion_lib.plots import denoising_strip, save_grid
from diffusion_lib.samplers import SAMPLERS, initial_noise, step_generator, usual_steps
from diffusion_lib.stopping import stop_on_signals
from diffusion_lib.training import Report, Trainer

AUTOSAVE = "autosave.pth"


def record(trainer: Trainer, name: str, folder: str | Path = ".") -> Iterator[Report]:
    """Run a trainer, pass its reports on, and write down what they say.

    At every report, for TensorBoard: loss, learning rate and more, in folder/runs/name.
    After every epoch: samples in folder/out/name_epoch_001.png, how one of them came out of the
    noise in folder/plot/name_epoch_001.png, and folder/autosave.pth, to go on from.
    At the end: autosave.pth once more, and the averaged model alone as folder/name.pth.

    A `break`, Ctrl-C, the stop button of a notebook and SIGTERM end the run after the step that is
    under way, with all that belongs to the end.
    """
    folder = Path(folder)
    config = trainer.config
    log = None
    if not config.disable_tensorboard:
        log = SummaryWriter(folder / "runs" / name, purge_step=trainer.step + 1)
    with stop_on_signals(trainer):
        try:
            for report in trainer:
                if log:
                    for quantity in ("loss", "learning_rate", "gradient_norm", "images_per_second"):
                        log.add_scalar(quantity, getattr(report, quantity), report.step)
                if report.epoch_ended:
                    trainer.save(folder / AUTOSAVE, name=name)
                    if not config.disable_images:
                        draw_samples(trainer, f"{name}_epoch_{report.epoch:03d}.png", folder, log)
                yield report
        except GeneratorExit:
            pass  # a `break` in the loop that we feed: an end like any other
        trainer.save(folder / AUTOSAVE, name=name)
        trainer.average.save(folder / f"{name}.pth")
    if log:
        log.close()


def draw_samples(
    trainer: Trainer, file: str, folder: Path, log: SummaryWriter | None, count: int = 16
) -> None:
    """Sample from the averaged model: always from the same noise, so that epochs compare."""
    config = trainer.config
    noise = torch.stack(list(islice(initial_noise(trainer.average, config.seed), count)))
    noise = noise.to(trainer.device)
    number = config.steps or usual_steps(config.sampler, config.timesteps)
    generator = step_generator(config.seed, trainer.device)
    steps = list(SAMPLERS[config.sampler](trainer.average, noise, number, generator))
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "plot").mkdir(parents=True, exist_ok=True)
    save_grid(steps[-1].x, folder / "out" / file)
    denoising_strip(noise, steps).savefig(folder / "plot" / file)
    if log:
        log.add_images("samples", to_pixels(steps[-1].x), trainer.step)
