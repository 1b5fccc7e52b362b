"""What a run leaves on disk: samples, denoising plots, a log of numbers, and checkpoints."""

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from diffusion_lib import distributed
from diffusion_lib.files import save_file
from diffusion_lib.images.pixels import to_pixels
from diffusion_lib.plots import denoising_strip, save_grid
from diffusion_lib.samplers import SAMPLERS, initial_noise, step_generator, usual_steps
from diffusion_lib.stopping import stop_on_signals
from diffusion_lib.training import Report, Trainer

AUTOSAVE = "autosave.pth"
CONSTANT = 0.01  # images whose pixels vary less, of 2 from black to white, show nothing


def record(trainer: Trainer, name: str, folder: str | Path = ".") -> Iterator[Report]:
    """Run a trainer, pass its reports on, and write down what they say.

    At every report: a line of numbers in folder/runs/name/stats.jsonl, and the same for TensorBoard
    beside it, with the settings at the start of the run.
    After every epoch: samples in folder/out/name_epoch_001.png, how one of them came out of the
    noise in folder/plot/name_epoch_001.png, and folder/autosave.pth, to go on from. That is written
    inside an epoch, too, when the last one is `autosave_minutes` old.
    At the end: autosave.pth once more, and the averaged model alone as folder/name.pth.

    A `break`, Ctrl-C, the stop button of a notebook and SIGTERM end the run after the step that is
    under way, with all that belongs to the end. Where several processes train together, the first
    one writes.
    """
    with stop_on_signals(trainer):
        if distributed.rank() == 0:
            yield from write_down(trainer, name, Path(folder))
        else:
            yield from trainer


def write_down(trainer: Trainer, name: str, folder: Path) -> Iterator[Report]:
    """`record` for the process that writes."""
    config = trainer.config
    log = Log(trainer, folder / "runs" / name)
    saved = time.monotonic()
    try:
        for report in trainer:
            log.add(report)
            late = time.monotonic() - saved > 60 * config.autosave_minutes
            if report.epoch_ended or late:
                trainer.save(folder / AUTOSAVE, name=name)
                saved = time.monotonic()
            if report.epoch_ended and not config.disable_images:
                draw_samples(trainer, f"{name}_epoch_{report.epoch:03d}.png", folder, log)
            yield report
    except GeneratorExit:
        pass  # a `break` in the loop that we feed: an end like any other
    trainer.save(folder / AUTOSAVE, name=name)
    trainer.average.save(folder / f"{name}.pth")
    log.close()


class Log:
    """The numbers of a run: folder/stats.jsonl, and unless it is disabled, TensorBoard's files.

    What a run that is resumed wrote after its last checkpoint is dropped: those steps come again.
    """

    def __init__(self, trainer: Trainer, folder: Path):
        self.stats = folder / "stats.jsonl"
        lines = self.stats.read_text().splitlines(keepends=True) if self.stats.exists() else []
        kept = [line for line in lines if line.endswith("\n")]
        kept = [line for line in kept if json.loads(line)["step"] <= trainer.step]
        save_file("".join(kept).encode(), self.stats)
        self.tensorboard = None
        if not trainer.config.disable_tensorboard:
            self.tensorboard = SummaryWriter(folder, purge_step=trainer.step + 1)
            for part in hparams(asdict(trainer.config), {"loss": 0.0}):
                self.tensorboard.file_writer.add_summary(part)

    def add(self, report: Report) -> None:
        """Write down a report."""
        numbers = asdict(report)
        levels = numbers.pop("loss_by_level")
        numbers |= {f"loss_by_level/{number}": loss for number, loss in enumerate(levels)}
        with open(self.stats, "a") as file:
            file.write(json.dumps(numbers).replace("NaN", "null") + "\n")  # json knows no NaN
        if self.tensorboard:
            for name in numbers.keys() - {"step", "steps", "epoch", "epoch_ended", "seconds"}:
                self.tensorboard.add_scalar(name, numbers[name], report.step)

    def add_samples(self, images: torch.Tensor, step: int) -> None:
        """Show samples in [-1, 1], shape (N, C, H, W)."""
        if self.tensorboard:
            self.tensorboard.add_images("samples", to_pixels(images), step)

    def close(self) -> None:
        if self.tensorboard:
            self.tensorboard.close()


def draw_samples(trainer: Trainer, file: str, folder: Path, log: Log, count: int = 16) -> None:
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
    log.add_samples(steps[-1].x, trainer.step)
    if steps[-1].x.flatten(2).std(dim=2).max() < CONSTANT:
        warnings.warn(
            f"after step {trainer.step} all samples are of one colour: look at "
            f"{folder / 'plot' / file} and at the loss, and if it stays so, lower --lr",
            stacklevel=2,
        )
