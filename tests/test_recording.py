"""What a run leaves on disk, and that it ends well however it ends."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusion_lib import GaussianDiffusion, InputError, TrainConfig, Trainer, record
from diffusion_lib.files import load_file
from diffusion_lib.training import Report, build

PIXELS = torch.randint(0, 256, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
QUIET = {"autosave.pth", "mine.pth", "runs/mine/stats.jsonl"}  # what every run writes
SIGNALS = [signal.SIGINT, signal.SIGTERM]


def make_trainer(**settings) -> Trainer:
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
    return Trainer(build(config, channels=1), PIXELS, config)


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
    assert "training" not in load_file(tmp_path / "mine.pth")


def test_autosave_is_written_before_an_epoch_is_reported(tmp_path):
    steps = []
    for report in record(make_trainer(), "mine", tmp_path):
        if report.epoch_ended:
            steps.append(load_file(tmp_path / "autosave.pth")["training"]["step"])
    assert steps == [2, 4]


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


def test_pictures_that_cannot_be_written_do_not_cost_the_epoch(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OSError, match="out"):
        list(record(make_trainer(disable_images=False), "mine", tmp_path))
    assert load_file(tmp_path / "autosave.pth")["training"]["step"] == 2


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
    second.restore(load_file(tmp_path / "autosave.pth"))
    list(record(second, "mine", tmp_path))
    log = events(tmp_path / "runs" / "mine")
    assert [scalar.step for scalar in log.Scalars("loss")] == [1, 2, 3, 4]


def test_tensorboard_forgets_steps_that_were_lost(tmp_path):
    for _ in range(2):
        list(record(make_trainer(disable_tensorboard=False), "mine", tmp_path))
        time.sleep(1.1)
    log = events(tmp_path / "runs" / "mine")
    assert [scalar.step for scalar in log.Scalars("loss")] == [1, 2, 3, 4]


# Ends


def assert_ended_well(folder: Path, step: int) -> None:
    """The files are whole, and the run can be taken up where it was left."""
    assert files(folder) == QUIET
    assert equal(weights_of(folder / "mine.pth"), weights_of(folder / "autosave.pth"))
    resumed, whole = make_trainer(), make_trainer()
    resumed.restore(load_file(folder / "autosave.pth"))
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
def test_a_signal_ends_the_run_after_the_step_under_way(tmp_path, number):
    trainer = make_trainer()
    train_step = trainer.train_step

    def interrupted():
        if trainer.step == 2:
            os.kill(os.getpid(), number)
        return train_step()

    trainer.train_step = interrupted
    reports = list(record(trainer, "mine", tmp_path))
    assert [report.step for report in reports] == [1, 2, 3]
    assert_ended_well(tmp_path, step=3)


def test_a_second_interrupt_acts_as_usual(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        for _ in record(make_trainer(), "mine", tmp_path):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)


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
