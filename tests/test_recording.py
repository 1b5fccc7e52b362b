"""What a run leaves on disk, and that it ends well however it ends."""

import errno
import itertools
import json
import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Set
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    TrainConfig,
    Trainer,
    locks,
    record,
    recording,
)
from diffusion_lib.diffusion import build
from diffusion_lib.files import append, load_checkpoint, save_file
from diffusion_lib.training import Report

PIXELS = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
QUIET = {"autosave.pth", "mine.pth", "runs/mine/stats.jsonl"}  # what every run writes
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def make_trainer(pixels: torch.Tensor = PIXELS, **settings) -> Trainer:
    """Four steps: two epochs of two."""
    default = dict(
        image_size=8,
        width=8,
        timesteps=6,
        epochs=2,
        batch_size=2,
        report_every=1,
        device="cpu",
        disable_images=True,
        disable_tensorboard=True,
    )
    config = TrainConfig(**{**default, **settings})
    return Trainer(build(config, channels=pixels.shape[1]), pixels, config)


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def weights_of(path: Path) -> list[torch.Tensor]:
    return list(GaussianDiffusion.load(path).network.state_dict().values())


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


# Files


def test_every_epoch_leaves_samples_a_plot_and_the_end_a_model(tmp_path):
    reports = list(record(make_trainer(disable_images=False), "mine", tmp_path))
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert files(tmp_path) == {
        "out/mine_epoch_001.png",
        "out/mine_epoch_002.png",
        "plot/mine_epoch_001.png",
        "plot/mine_epoch_002.png",
        *QUIET,
    }
    for file in tmp_path.rglob("*.png"):
        assert min(Image.open(file).size) >= 64


def test_a_quiet_run_writes_nothing_but_checkpoints(tmp_path):
    list(record(make_trainer(), "mine", tmp_path))
    assert files(tmp_path) == QUIET


def test_the_folder_is_made(tmp_path):
    list(record(make_trainer(epochs=1), "mine", tmp_path / "deep" / "er"))
    assert files(tmp_path / "deep" / "er") == QUIET


def test_the_model_is_the_average(tmp_path):
    trainer = make_trainer(lr=0.01)
    list(record(trainer, "mine", tmp_path))
    expected = list(trainer.average.network.state_dict().values())
    assert equal(weights_of(tmp_path / "mine.pth"), expected)
    assert equal(weights_of(tmp_path / "autosave.pth"), expected)
    assert not equal(expected, list(trainer.diffusion.network.state_dict().values()))
    assert "training" not in load_checkpoint(tmp_path / "mine.pth")


def test_autosave_is_written_before_an_epoch_is_reported(tmp_path):
    steps = []
    for report in record(make_trainer(), "mine", tmp_path):
        if report.epoch_ended:
            steps.append(load_checkpoint(tmp_path / "autosave.pth")["training"]["step"])
    assert steps == [2, 4]


def test_autosave_is_written_inside_an_epoch_when_the_last_one_is_old(tmp_path, monkeypatch):
    now, steps = [0.0], []
    monkeypatch.setattr(recording, "time", SimpleNamespace(monotonic=lambda: now[0]))
    autosave = tmp_path / "autosave.pth"
    for _ in record(make_trainer(batch_size=1, autosave_minutes=10), "mine", tmp_path):
        steps.append(load_checkpoint(autosave)["training"]["step"] if autosave.exists() else None)
        now[0] += 6 * 60
    # The epochs end at 4 and 8; at 3, and at 6, the last one is 12 minutes old.
    assert steps == [None, None, 3, 4, 4, 6, 6, 8]


def test_samples_of_all_epochs_start_from_the_same_noise(tmp_path):
    trainer = make_trainer(disable_images=False, lr=1e-12)
    list(record(trainer, "mine", tmp_path))
    first, second = (Image.open(tmp_path / "out" / f"mine_epoch_00{i}.png") for i in (1, 2))
    assert first.tobytes() == second.tobytes() and len(first.getcolors(10**6)) > 100


def test_pictures_do_not_change_what_is_learnt(tmp_path):
    quiet, loud = make_trainer(), make_trainer(disable_images=False, disable_tensorboard=False)
    list(record(quiet, "quiet", tmp_path))
    list(record(loud, "loud", tmp_path))
    assert equal(weights_of(tmp_path / "quiet.pth"), weights_of(tmp_path / "loud.pth"))


def test_a_checkpoint_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        list(record(make_trainer(), "mine", tmp_path / "file"))


# What cannot be written


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def record_with_warnings(trainer: Trainer, folder: Path, between=lambda report: None) -> list[str]:
    """Run to the end, doing something between reports; the warnings of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for report in record(trainer, "mine", folder):
            between(report)
    return [str(warning.message) for warning in caught if "cannot write" in str(warning.message)]


def test_with_a_time_limit_pictures_take_a_tenth_of_it_and_the_last_are_drawn(
    tmp_path, monkeypatch
):
    """Steps of two seconds, two an epoch; pictures take four seconds."""
    now, drawn = [0.0], []

    def draw(trainer, *_):
        now[0] += 4
        drawn.append(trainer.step)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(recording, "draw_samples", draw)
    trainer = make_trainer(minutes=4, epochs=None, disable_images=False)
    trainer.after_step = lambda: now.__setitem__(0, now[0] + 2)
    *_, last = record(trainer, "mine", tmp_path)
    assert drawn[:3] == [2, 20, 38] and drawn[-1] == last.step
    assert 100 < last.step < 120 and len(drawn) <= 8


def test_pictures_that_cannot_be_written_do_not_end_the_run(tmp_path):
    trainer = make_trainer(disable_images=False)
    trainer.after_step = (tmp_path / "out").touch  # a file, while the run is under way
    first, second = record_with_warnings(trainer, tmp_path)
    assert "out/mine_epoch_001.png (" in first and "out/mine_epoch_002.png (" in second
    assert_ended_well(tmp_path, step=4, more={"out"})


@pytest.mark.parametrize("message", ["CUDA out of memory", "can't allocate memory: you tried"])
def test_no_memory_for_samples_does_not_end_the_run(tmp_path, monkeypatch, message):
    def too_small(*_, **__):
        raise RuntimeError(message)

    monkeypatch.setattr(recording, "trajectory", too_small)
    assert len(record_with_warnings(make_trainer(disable_images=False), tmp_path)) == 2
    assert_ended_well(tmp_path, step=4)


def test_another_error_in_drawing_is_one(tmp_path, monkeypatch):
    def wrong(*_, **__):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(recording, "trajectory", wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        list(record(make_trainer(disable_images=False), "mine", tmp_path))


def test_a_full_disk_costs_no_line_of_the_log(tmp_path, monkeypatch):
    append, reports = recording.append, []

    def between(report):
        reports.append(report)
        monkeypatch.setattr(recording, "append", full if len(reports) in (1, 2) else append)

    messages = record_with_warnings(make_trainer(), tmp_path, between)
    assert len(messages) == 2 and "stats.jsonl (No space left on device)" in messages[0]
    assert [line["step"] for line in stats(tmp_path)] == [1, 2, 3, 4]


def test_what_is_appended_is_whole_or_not_there(tmp_path):
    resource = pytest.importorskip("resource")
    file, (usual, hard) = tmp_path / "log", resource.getrlimit(resource.RLIMIT_FSIZE)
    append(b"first line\n", file)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (15, hard))  # as a disk that becomes full
        with pytest.raises(OSError):
            append(b"second line\n", file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, hard))
    assert file.read_bytes() == b"first line\n"


def test_a_checkpoint_that_finds_no_room_is_tried_again(tmp_path, monkeypatch):
    replace, saved = os.replace, []

    def refuse_the_first(source, target):
        if Path(target).name == "autosave.pth":
            saved.append(target)
            if len(saved) == 1:
                full()
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_first)
    (message,) = record_with_warnings(make_trainer(), tmp_path)
    assert "autosave.pth (No space left on device)" in message and len(saved) == 3
    assert_ended_well(tmp_path, step=4)


def test_if_the_run_finds_no_room_at_the_end_the_model_may(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "save", lambda *_, **__: save_file({}, tmp_path / "x" / "y"))
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="cannot write"):
        record_with_warnings(make_trainer(), tmp_path)
    assert files(tmp_path) == {"x", "mine.pth", "runs/mine/stats.jsonl"}


def test_folders_that_are_deleted_are_made_again(tmp_path):
    def delete(report):
        if report.step == 2:
            for folder in tmp_path.iterdir():
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()

    trainer = make_trainer(disable_images=False)
    assert record_with_warnings(trainer, tmp_path, delete) == []
    pictures = {"out/mine_epoch_002.png", "plot/mine_epoch_002.png"}
    assert_ended_well(tmp_path, step=4, more=pictures)
    assert [line["step"] for line in stats(tmp_path)] == [3, 4]


@pytest.mark.parametrize("method", ["add_scalar", "add_images", "close"])
def test_tensorboard_that_cannot_write_is_given_up(tmp_path, monkeypatch, method):
    monkeypatch.setattr(SummaryWriter, method, full)
    trainer = make_trainer(disable_tensorboard=False, disable_images=method != "add_images")
    (message,) = record_with_warnings(trainer, tmp_path)
    assert "runs/mine (No space left on device): the run goes on" in message
    assert [line["step"] for line in stats(tmp_path)] == [1, 2, 3, 4]
    assert (tmp_path / "mine.pth").is_file()


def test_a_clock_that_jumps_does_no_harm(tmp_path, monkeypatch):
    now, clock = time.time(), itertools.cycle([0, 10**6, -(10**6)])
    monkeypatch.setattr(time, "time", lambda: now + next(clock))
    trainer = make_trainer(minutes=1000, disable_tensorboard=False)
    reports = list(record(trainer, "mine", tmp_path))
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert 0 < reports[-1].seconds < 60_000
    assert len(events(tmp_path / "runs" / "mine").Scalars("loss")) == 4


# Samples that show nothing


def draw(folder: Path, answer) -> list[str]:
    """Run an epoch, with the samples that `answer` makes of others, and return the warnings."""
    pixels = PIXELS.expand(-1, 3, -1, -1)
    trainer = make_trainer(pixels, epochs=1, disable_images=False, prediction="x0")
    trainer.average.network.register_forward_hook(lambda _, __, images: answer(images))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(record(trainer, "mine", folder))
    return [str(warning.message) for warning in caught if "samples" in str(warning.message)]


@pytest.mark.parametrize(
    "colours",
    [
        torch.full((16, 1), 0.3),
        torch.linspace(-1, 1, 16)[:, None],
        torch.tensor([0.8, -0.9, 0.0]).expand(16, 3),
    ],
    ids=["one grey", "each its own grey", "red"],
)
def test_samples_without_any_contrast_are_warned_of(tmp_path, colours):
    (message,) = draw(tmp_path, lambda images: colours[:, :, None, None].expand_as(images))
    assert "after step 2 every sample is a single colour" in message
    assert str(tmp_path / "plot" / "mine_epoch_001.png") in message and "\n" not in message


def test_samples_of_which_one_shows_something_are_not_warned_of(tmp_path):
    def answer(images):
        images = torch.zeros_like(images)
        images[7, :, :4] = 0.5
        return images

    assert draw(tmp_path, answer) == []


# Numbers


def stats(folder: Path) -> list[dict]:
    """The lines of stats.jsonl, which have to be json as everyone reads it."""

    def refuse(constant):
        raise ValueError(f"{constant} is no json")

    lines = (folder / "runs" / "mine" / "stats.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


@pytest.mark.parametrize("disabled", [True, False], ids=["alone", "with TensorBoard"])
def test_stats_are_the_numbers_of_the_reports(tmp_path, disabled):
    reports = list(record(make_trainer(disable_tensorboard=disabled), "mine", tmp_path))
    lines = stats(tmp_path)
    for line, report in zip(lines, reports, strict=True):
        numbers = asdict(report)
        for quarter, loss in enumerate(numbers.pop("loss_quarters")):
            numbers[f"loss_q{quarter}"] = None if math.isnan(loss) else loss
        assert line == numbers
    missing = [value is None for line in lines for value in line.values()]
    assert any(missing)  # two images a step cannot have timesteps of all four quarters
    assert any("events" in name for name in files(tmp_path)) != disabled


@pytest.mark.parametrize("torn", ["", '{"step": 4, "lo'], ids=["whole lines", "half a line"])
def test_stats_of_steps_after_the_checkpoint_are_dropped_when_a_run_goes_on(tmp_path, torn):
    first, second = make_trainer(), make_trainer()
    for report in record(first, "mine", tmp_path):
        if report.step == 2:
            checkpoint = load_checkpoint(tmp_path / "autosave.pth")
        first.stopping = report.step == 3
    before = stats(tmp_path)
    with open(tmp_path / "runs" / "mine" / "stats.jsonl", "a") as file:
        file.write(torn)
    second.restore(checkpoint)
    list(record(second, "mine", tmp_path))
    after = stats(tmp_path)
    assert [line["step"] for line in before] == [1, 2, 3]
    assert [line["step"] for line in after] == [1, 2, 3, 4]
    assert after[:2] == before[:2] and after[2] != before[2]


def test_stats_of_an_earlier_run_are_dropped_by_a_new_one(tmp_path):
    for _ in range(2):
        list(record(make_trainer(), "mine", tmp_path))
    assert [line["step"] for line in stats(tmp_path)] == [1, 2, 3, 4]


# TensorBoard


def test_tensorboard_shows_every_report_and_the_samples(tmp_path):
    trainer = make_trainer(disable_images=False, disable_tensorboard=False)
    reports = list(record(trainer, "mine", tmp_path))
    log = events(tmp_path / "runs" / "mine")
    for quantity in ("loss", "learning_rate", "gradient_norm", "images_per_second"):
        shown = [(scalar.step, scalar.value) for scalar in log.Scalars(quantity)]
        assert shown == [
            (report.step, pytest.approx(getattr(report, quantity))) for report in reports
        ]
    assert [image.step for image in log.Images("samples")] == [2, 4]


def test_tensorboard_shows_a_resumed_run_without_gap_or_overlap(tmp_path):
    first, second = (make_trainer(disable_tensorboard=False) for _ in range(2))
    for report in record(first, "mine", tmp_path):
        first.stopping = report.step == 3
    time.sleep(1.1)  # TensorBoard orders files by the second in their names
    second.restore(load_checkpoint(tmp_path / "autosave.pth"))
    list(record(second, "mine", tmp_path))
    log = events(tmp_path / "runs" / "mine")
    assert [scalar.step for scalar in log.Scalars("loss")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_tensorboard_forgets_steps_that_were_lost(tmp_path):
    for _ in range(2):
        list(record(make_trainer(disable_tensorboard=False), "mine", tmp_path))
        time.sleep(1.1)
    log = events(tmp_path / "runs" / "mine")
    assert [scalar.step for scalar in log.Scalars("loss")] == [1, 2, 3, 4]


# Ends


def assert_ended_well(folder: Path, step: int, more: Set[str] = frozenset()) -> None:
    """The files are whole, and the run can be taken up where it was left."""
    assert files(folder) == QUIET | more
    assert equal(weights_of(folder / "mine.pth"), weights_of(folder / "autosave.pth"))
    resumed, whole = make_trainer(), make_trainer()
    resumed.restore(load_checkpoint(folder / "autosave.pth"))
    assert resumed.step == step
    list(resumed)
    list(whole)
    assert equal(
        list(resumed.average.network.state_dict().values()),
        list(whole.average.network.state_dict().values()),
    )


def test_a_break_is_an_end_like_any_other(tmp_path):
    for report in record(make_trainer(), "mine", tmp_path):
        if report.step == 3:
            break
    assert_ended_well(tmp_path, step=3)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_answered_at_once_and_ends_the_run_after_the_step(tmp_path, number, capfd):
    trainer = make_trainer()
    train_step = trainer.train_step

    def interrupted():
        if trainer.step == 2:
            os.kill(os.getpid(), number)
            assert "stopping after this step" in capfd.readouterr().err
        return train_step()

    trainer.train_step = interrupted
    reports = list(record(trainer, "mine", tmp_path))
    assert [report.step for report in reports] == [1, 2, 3]
    assert_ended_well(tmp_path, step=3)


def test_a_second_interrupt_acts_as_usual(tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            for _ in record(make_trainer(), "mine", tmp_path):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("end", ["all", "break", "error"])
def test_signal_handlers_are_put_back(tmp_path, end):
    before = [signal.getsignal(number) for number in SIGNALS]

    def feed():
        reports = record(make_trainer(), "mine", tmp_path)
        for _ in reports:
            assert [signal.getsignal(number) for number in SIGNALS] != before
            if end == "break":
                break
            if end == "error":
                raise ArithmeticError

    if end == "error":
        with pytest.raises(ArithmeticError):
            feed()
    else:
        feed()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_run_in_another_thread_needs_no_signals(tmp_path):
    reports: list[Report] = []
    thread = threading.Thread(
        target=lambda: reports.extend(record(make_trainer(), "mine", tmp_path))
    )
    thread.start()
    thread.join()
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert files(tmp_path) == QUIET


# Two runs at once


@pytest.mark.skipif(not locks.fcntl, reason="no locks here")
def test_a_second_run_in_a_folder_is_refused_while_the_first_one_trains(tmp_path):
    first = record(make_trainer(), "mine", tmp_path)
    next(first)
    before = files(tmp_path)
    with pytest.raises(InputError, match="another run is writing to"):
        next(record(make_trainer(), "other", tmp_path))
    assert files(tmp_path) == before
    list(record(make_trainer(), "other", tmp_path / "elsewhere"))
    list(first)
    list(record(make_trainer(), "other", tmp_path))  # now it is free
