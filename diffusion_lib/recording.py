"""What a run writes to disk: samples, denoising plots, a log of numbers, and checkpoints."""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from diffusion_lib import distributed
from diffusion_lib.config import SAMPLES
from diffusion_lib.copying import CopyWatch
from diffusion_lib.errors import InputError, out_of_memory
from diffusion_lib.files import append, first_line, save_file
from diffusion_lib.images.pixels import to_pixels
from diffusion_lib.labels import every_label
from diffusion_lib.locks import locked
from diffusion_lib.plots import denoising_strip, save_grid, save_rows
from diffusion_lib.reports import Report
from diffusion_lib.sampling import trajectory
from diffusion_lib.stopping import stop_on_signals
from diffusion_lib.training import Trainer

AUTOSAVE = "autosave.pth"
MOST_ROWS = 32  # classes that are drawn after an epoch
CONSTANT = 0.01  # images whose pixels vary less, of 2 from black to white, show nothing


def record(trainer: Trainer, name: str, folder: str | Path = ".") -> Iterator[Report]:
    """Run a trainer, yield its reports, and save them.

    At every report: a line of numbers in folder/runs/name/stats.jsonl, and the same for TensorBoard
    beside it, with the settings at the start of the run.
    After every epoch: samples in folder/out/name_epoch_001.png, how one of them was
    denoised in folder/plot/name_epoch_001.png, and folder/autosave.pth, to resume from. It is also
    written within an epoch, when the last one is `autosave_minutes` old. With a time limit, samples
    are drawn after fewer epochs if they would take more than a tenth of the time.
    At the end: autosave.pth once more, and the averaged model alone as folder/name.pth.
    Once samples are copies of training images: the last model of which they were not, as
    folder/name_before_copying.pth.

    A `break`, Ctrl-C, the stop button of a notebook and SIGTERM end the run after the current step,
    and everything is saved as at the end. Of several processes, rank 0 writes.

    What cannot be written meanwhile, since the disk is full or the folder is gone, is a warning,
    and is tried again with the next report, checkpoint or epoch.

    Raises:
        InputError: another run is writing to this folder, or the model cannot be written at the
            end.
    """
    with stop_on_signals(trainer):
        if distributed.rank() == 0:
            with only_run(Path(folder)):
                yield from _record_rank_zero(trainer, name, Path(folder))
        else:
            yield from trainer


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Two runs in one folder would replace each other's autosave.pth: the second is refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder, wait=False))
        except BlockingIOError as error:
            raise InputError(
                f"another run is writing to {folder.resolve()}: choose another folder, or wait "
                "until it ends"
            ) from error
        yield


def _record_rank_zero(trainer: Trainer, name: str, folder: Path) -> Iterator[Report]:
    """`record` in the process that writes."""
    config = trainer.config
    for pictures in () if config.disable_images else (folder / "out", folder / "plot"):
        if pictures.exists() and not pictures.is_dir():
            raise InputError(f"{pictures} is a file, but pictures go into a folder there: move it")
    log = Log(trainer, folder / "runs" / name)
    watch = CopyWatch(trainer, folder / f"{name}_before_copying.pth")
    saved = drawn = time.monotonic()
    cost = 0.0  # seconds that the last pictures took
    try:
        for report in trainer:
            log.add(report)
            late = time.monotonic() - saved > 60 * config.autosave_minutes
            if report.epoch_ended or late:
                with going_on(folder / AUTOSAVE):
                    trainer.save(folder / AUTOSAVE, name=name)
                saved = time.monotonic()
            # Of a run with a time limit, pictures take at most a tenth; the last ones are drawn.
            ended = bool(config.minutes) and report.step == report.steps
            due = not config.minutes or time.monotonic() - drawn >= 9 * cost
            if (ended or (report.epoch_ended and due)) and not config.disable_images:
                file = f"{name}_epoch_{report.epoch:03d}.png"
                started = time.monotonic()
                with going_on(folder / "out" / file):
                    draw_samples(trainer, file, folder, log)
                drawn = time.monotonic()
                cost = drawn - started
            with going_on(watch.file):
                watch.look(report)
            yield report
    except GeneratorExit:
        pass  # a `break` in the caller's loop ends the run like any other end
    with ExitStack() as end:  # if there is no room for the run, there may be for the model
        end.callback(log.close)
        end.callback(trainer.average.save, folder / f"{name}.pth")
        trainer.save(folder / AUTOSAVE, name=name)


@contextmanager
def going_on(file: Path) -> Iterator[None]:
    """A file that cannot be written, or no memory to make it, is a warning: the run goes on."""
    try:
        yield
    except (InputError, OSError, RuntimeError, MemoryError) as error:
        reason = error.__cause__ if isinstance(error, InputError) else error
        if not isinstance(reason, OSError) and not out_of_memory(reason):
            raise
        why = getattr(reason, "strerror", None) or first_line(reason)
        warnings.warn(f"cannot write {file} ({why}): the run goes on without it", stacklevel=3)


class Log:
    """The numbers of a run: folder/stats.jsonl, and unless it is disabled, TensorBoard's files.

    When a run is resumed, lines after its checkpoint are dropped: those steps come again.
    """

    def __init__(self, trainer: Trainer, folder: Path):
        self.stats = folder / "stats.jsonl"
        lines = (
            self.stats.read_text(errors="replace").splitlines(keepends=True)
            if self.stats.exists()
            else []
        )
        kept = [line for line in lines if 0 <= step_of(line) <= trainer.step]
        save_file("".join(kept).encode(), self.stats)
        self.unwritten = b""
        self.tensorboard = None
        if not trainer.config.disable_tensorboard:
            self.tensorboard = SummaryWriter(folder, purge_step=trainer.step + 1)
            for part in hparams(asdict(trainer.config), {"loss": 0.0}):
                self.tensorboard.file_writer.add_summary(part)

    def add(self, report: Report) -> None:
        """Append a report."""
        numbers = asdict(report)
        quarters = numbers.pop("loss_quarters")
        numbers |= {f"loss_q{number}": loss for number, loss in enumerate(quarters)}
        line = json.dumps(numbers).replace("NaN", "null") + "\n"  # json knows no NaN
        self.unwritten += line.encode()
        with going_on(self.stats):
            append(self.unwritten, self.stats)
            self.unwritten = b""

        def add_scalars(board: SummaryWriter) -> None:
            for name in numbers.keys() - {"step", "steps", "epoch", "epoch_ended", "seconds"}:
                board.add_scalar(name, numbers[name], report.step)

        self.to_tensorboard(add_scalars)

    def add_samples(self, images: torch.Tensor, step: int, label: str = "") -> None:
        """Show samples in [-1, 1], shape (N, C, H, W)."""
        name = f"samples/{label}" if label else "samples"
        self.to_tensorboard(lambda board: board.add_images(name, to_pixels(images), step))

    def close(self) -> None:
        self.to_tensorboard(SummaryWriter.close)

    def to_tensorboard(self, write: Callable[[SummaryWriter], object]) -> None:
        """Write to TensorBoard's files, if there are any. After an error there are none."""
        board, self.tensorboard = self.tensorboard, None
        if board:
            with going_on(self.stats.parent):
                write(board)
                self.tensorboard = board


def step_of(line: str) -> int:
    """The step of a line of stats.jsonl; -1 for one that a crash has cut off or damaged."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else -1
    except (ValueError, TypeError, KeyError):
        return -1


def draw_samples(trainer: Trainer, file: str, folder: Path, log: Log, count: int = SAMPLES) -> None:
    """Samples of the averaged model, always from the same noise, so that epochs compare. Those of a
    model with labels show each class, in a row.
    """
    config, rows = trainer.config, every_label(trainer.average.classes)[:MOST_ROWS]
    each = max(1, 2 * count // len(rows)) if rows else count
    labels = [row for row in rows for _ in range(each)] or None
    count = len(labels or range(count))
    how = config.sampler, config.steps, config.seed
    noise, steps = trajectory(trainer.average, count, *how, labels=labels)
    (folder / "out").mkdir(parents=True, exist_ok=True)
    (folder / "plot").mkdir(parents=True, exist_ok=True)
    if rows:
        save_rows(dict(zip(rows, steps[-1].x.split(each), strict=True)), folder / "out" / file)
    else:
        save_grid(steps[-1].x, folder / "out" / file)
    denoising_strip(noise, steps).save(folder / "plot" / file)
    for row, images in zip(rows or [""], steps[-1].x.split(each), strict=True):
        log.add_samples(images, trainer.step, row)
    if steps[-1].x.flatten(2).std(dim=2).max() < CONSTANT:
        warnings.warn(
            f"after step {trainer.step} every sample is a single colour: look at "
            f"{folder / 'plot' / file} and at the loss; if that does not change, lower --lr",
            stacklevel=2,
        )
