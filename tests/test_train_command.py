"""The command line `train`, used as people use it, rightly and wrongly."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import make_images, noise_image
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffusion_lib import (
    GaussianDiffusion,
    TrainConfig,
    build,
    diffusion,
    estimate,
    predict,
    train,
    training,
)
from diffusion_lib.devices import fast_bfloat16, find_device
from diffusion_lib.files import load_checkpoint
from diffusion_lib.recipe import recipe
from diffusion_lib.samplers import ddpm
from diffusion_lib.sampling import SAMPLERS

# One epoch of two steps, in a moment.
TINY = [
    *("-i", "8", "--width", "8", "-b", "4", "-e", "1"),
    *("-t", "20", "-s", "cosine", "--device", "cpu"),
    *("--network", "unet", "--optimizer", "adamw", "--precision", "float32"),
]
STOP = "stop"  # in place of a flag: Ctrl-C comes in the first step
QUIET = ["--disable_images", "--disable_tensorboard"]


@pytest.fixture
def train_command(command, monkeypatch):
    """train_command(argument, ...), of which one may be STOP."""

    def stopped_step(trainer):
        trainer.stopping = True
        return step(trainer)

    def called(*arguments):
        with monkeypatch.context() as patch:
            if STOP in arguments:
                patch.setattr(training.Trainer, "train_step", stopped_step)
            return command(train.main, "train", *(a for a in arguments if a != STOP))

    step = training.Trainer.train_step
    return called


@pytest.fixture
def run(train_command, images):
    """run(NAME, flag, ...) trains on six coloured images of 8x8 pixels, in tmp_path."""
    return lambda name, *flags: train_command(name, images, *TINY, *QUIET, *flags)


@pytest.fixture
def resume(train_command, images):
    """resume(NAME, flag, ...) goes on with a run, and says nothing of its settings."""
    return lambda name, *flags: train_command(name, images, "--device", "cpu", "--resume", *flags)


def weights_of(path: Path) -> list[torch.Tensor]:
    return list(GaussianDiffusion.load(path).network.state_dict().values())


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def state_of(path: Path) -> dict:
    return load_checkpoint(path)["training"]


def assert_refused(outcome, *words: str) -> None:
    """One line that says what is wrong, and exit status 2."""
    assert outcome.status == 2
    assert len(outcome.messages) == 1, outcome.messages
    assert outcome.messages[0].startswith("train: error: ")
    assert [word for word in words if word not in outcome.messages[0]] == []


def snapshot(folder: Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Time and memory


def test_a_run_says_before_it_starts_what_it_will_take(run):
    told = run("mine").out
    assert re.search(r"2 steps and their pictures: about \d+ s, about [\d.]+ GB of memory", told)
    assert "--minutes" not in told


def test_a_long_run_is_told_how_to_be_shorter(run, monkeypatch):
    monkeypatch.setattr(estimate, "seconds_per_step", lambda trainer: 4000)
    told = run("mine").out
    assert "2 steps and their pictures: about 2 h 13 min" in told and "--minutes 10 " in told


@pytest.mark.parametrize("flags", [("-e", 60), ("-e", 1000, "--minutes", 4)])
def test_a_run_on_few_images_is_told_that_there_may_be_copies(run, monkeypatch, flags):
    """Of six images from epoch 49 on. An epoch has two steps."""
    monkeypatch.setattr(estimate, "seconds_per_step", lambda trainer: 2)
    assert "\n60 epochs of 6 images: samples may " in run("mine", *flags, STOP).out
    assert "samples may" not in run("other", "-e", 48, STOP, "--force").out


def test_the_recipe_is_printed_without_what_was_chosen(command, images):
    told = command(train.main, "train", "mine", images, "-i", 8, "-e", 1, "--lr", 0.01, *QUIET).out
    (line,) = (line for line in told.splitlines() if line.startswith("by the recipe: "))
    device = find_device().type
    for option in recipe(device, False).keys() - {"lr"}:
        assert f"--{option} " in line
    assert "--lr" not in line


@pytest.mark.parametrize("flags", [("--width", 8), ("--patch", 1)])
def test_a_width_or_patch_that_no_transformer_has_means_a_unet(command, images, flags):
    outcome = command(train.main, "train", "mine", images, "-i", 8, "-e", 1, *flags, *QUIET)
    assert outcome.status == 0
    assert load_checkpoint(Path("mine.pth"))["network"]["kind"] == "unet"


def test_a_run_of_some_minutes_ends_by_itself_and_is_finished(run, resume):
    outcome = run("mine", "-e", 1000, "--minutes", "1e-9")
    assert outcome.status == 0 and "--resume" not in outcome.out
    assert (state_of("autosave.pth")["step"], state_of("autosave.pth")["steps"]) == (1, 1)
    assert_refused(resume("mine"), "--minutes")
    assert resume("mine", "--minutes", 0, "-e", 2).status == 0
    assert state_of("autosave.pth")["step"] == 4


# What a run leaves


def test_a_run_leaves_what_the_readme_promises(command, images, tmp_path):
    outcome = command(train.main, "train", "mine", images, *TINY, "-e", 2)
    assert outcome.status == 0 and outcome.messages == []
    for epoch in ("001", "002"):
        assert (tmp_path / "out" / f"mine_epoch_{epoch}.png").is_file()
        assert (tmp_path / "plot" / f"mine_epoch_{epoch}.png").is_file()
    log = EventAccumulator(str(tmp_path / "runs" / "mine")).Reload()
    assert [scalar.step for scalar in log.Scalars("loss")] == [2, 4]
    assert (tmp_path / "autosave.pth").is_file()
    assert GaussianDiffusion.load("mine.pth").image_shape == (3, 8, 8)
    assert "mine.pth" in outcome.out and "6 images of 8x8, colour" in outcome.out


def test_samples_of_an_epoch_are_made_as_asked_for(command, images, tmp_path, monkeypatch):
    asked = []

    def sampler(diffusion, noise, steps, *more):
        asked.append(steps)
        return ddpm(diffusion, noise, steps, *more)

    monkeypatch.setitem(SAMPLERS, "ddpm", sampler)
    outcome = command(
        train.main, "train", "mine", images, *TINY, "-e", 1, "--sampler", "ddpm", "--steps", 3
    )
    assert outcome.status == 0 and asked == [3]
    assert (tmp_path / "out" / "mine_epoch_001.png").is_file()


def test_disabled_images_and_log_are_not_written(run, tmp_path):
    assert run("mine").status == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "images",
        "autosave.pth",
        "mine.pth",
        "runs",
    }


def test_disabled_images_leave_the_log(command, images, tmp_path):
    command(train.main, "train", "mine", images, *TINY, "--disable-images")
    assert (tmp_path / "runs" / "mine").is_dir()
    assert not (tmp_path / "out").exists() and not (tmp_path / "plot").exists()


def test_disabled_log_leaves_the_images(command, images, tmp_path):
    command(train.main, "train", "mine", images, *TINY, "--disable-tensorboard")
    assert (tmp_path / "out").is_dir()
    assert [path.name for path in (tmp_path / "runs" / "mine").iterdir()] == ["stats.jsonl"]


def test_nothing_that_was_there_is_touched(command, images, tmp_path):
    for name in ("out/a.png", "plot/b.png", "runs/c/d", "outputs/e.png", "f.pth", "out/other/g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    before = snapshot(tmp_path)
    assert command(train.main, "train", "mine", images, *TINY).status == 0
    after = snapshot(tmp_path)
    assert {path: after.get(path) for path in before} == before


def test_another_folder_can_be_named(run, tmp_path):
    assert run("mine", "--folder", "deep/er").status == 0
    assert {path.name for path in (tmp_path / "deep/er").iterdir()} == {
        "autosave.pth",
        "mine.pth",
        "runs",
    }
    assert not (tmp_path / "autosave.pth").exists()


def test_grey_images_make_a_grey_model(command, tmp_path):
    make_images(tmp_path / "grey", grey=True)
    assert "grey" in command(train.main, "train", "mine", "grey/", *TINY, *QUIET).out
    assert GaussianDiffusion.load("mine.pth").image_shape == (1, 8, 8)


def test_a_bundled_set_is_a_path(train_command):
    assert "4,000 images of 8x8" in train_command("mine", "faces", *TINY, *QUIET, STOP).out


def test_a_zip_is_a_path(command, images, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", images)
    outcome = command(train.main, "train", "mine", archive, *TINY, *QUIET)
    assert outcome.status == 0 and "6 images" in outcome.out


def test_broken_images_are_named_in_one_line(run, images):
    (images / "broken.png").write_bytes((images / "0000.png").read_bytes()[:100])
    outcome = run("mine")
    assert outcome.status == 0
    assert len(outcome.messages) == 1 and outcome.messages[0].startswith("warning: ")
    assert "broken.png" in outcome.messages[0]


# Flags


@pytest.fixture
def config_of(monkeypatch):
    """config_of(flag, ...) is the configuration that the flags lead to."""

    class Stop(Exception):
        pass

    def stop(config, channels):
        raise Stop(config)

    def config_of(*flags: str) -> TrainConfig:
        monkeypatch.setattr(diffusion, "build", stop)
        with pytest.raises(Stop) as stopped:
            train.main(["mine", "faces", *flags])
        return stopped.value.args[0]

    return config_of


def by_recipe(**chosen) -> TrainConfig:
    """The settings of a run with these flags."""
    device = find_device().type
    return TrainConfig(**{**recipe(device, device == "cpu" and fast_bfloat16()), **chosen})


def test_defaults_are_those_of_the_contract(config_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of()
    assert config == by_recipe()
    assert (config.timesteps, config.most_epochs, config.image_size) == (1000, 100, 64)
    assert not config.disable_images and not config.disable_tensorboard


@pytest.mark.parametrize(
    "flags, field, value",
    [
        (["-t", "7"], "timesteps", 7),
        (["--timesteps", "7"], "timesteps", 7),
        (["--timesteps=7"], "timesteps", 7),
        (["-e", "7"], "epochs", 7),
        (["--epochs", "7"], "epochs", 7),
        (["-b", "7"], "batch_size", 7),
        (["-b7"], "batch_size", 7),
        (["--batch_size", "7"], "batch_size", 7),
        (["--batch-size", "7"], "batch_size", 7),
        (["--batch-size=7"], "batch_size", 7),
        (["-i", "16"], "image_size", 16),
        (["--image_size", "16"], "image_size", 16),
        (["--image-size", "16"], "image_size", 16),
        *[(["-s", name], "beta_schedule", name) for name in ("linear", "quadratic", "sigmoid")],
        (["--beta_schedule", "cosine"], "beta_schedule", "cosine"),
        (["--beta-schedule", "cosine"], "beta_schedule", "cosine"),
        (["--disable_images"], "disable_images", True),
        (["--disable-images"], "disable_images", True),
        (["--disable_tensorboard"], "disable_tensorboard", True),
        (["--disable-tensorboard"], "disable_tensorboard", True),
        (["--lr", "2e-4"], "lr", 2e-4),
        (["--channels", "1"], "channels", "1"),
        (["--seed", "3"], "seed", 3),
        (["--report-every", "3"], "report_every", 3),
        *[(["--sampler", name], "sampler", name) for name in SAMPLERS],
        (["--flip"], "flip", True),
        (["--shift", "2.5"], "shift", 2.5),
        (["--shift", "4"], "shift", 4.0),
        (["--zero_terminal_snr"], "zero_terminal_snr", True),
        (["--zero-terminal-snr"], "zero_terminal_snr", True),
        (["--min_snr", "5"], "min_snr", 5.0),
        (["--min-snr=5"], "min_snr", 5.0),
        (["--steps", "3"], "steps", 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_flag_sets_its_field_and_no_other(config_of, tmp_path, monkeypatch, flags, field, value):
    monkeypatch.chdir(tmp_path)
    assert config_of(*flags) == by_recipe(**{field: value})


def test_flags_reach_the_model(run):
    run("mine", "-t", 30, "-s", "cosine", "-i", 16, "--prediction", "v", "--width", 16)
    model = GaussianDiffusion.load("mine.pth")
    assert model.image_shape == (3, 16, 16) and model.prediction == "v"
    assert (model.schedule.name, model.schedule.timesteps) == ("cosine", 30)
    assert model.network.width == 16


def test_shift_and_zero_terminal_snr_reach_the_model(run):
    outcome = run("mine", "--shift", 2, "--zero_terminal_snr", "--prediction", "v")
    assert outcome.status == 0 and outcome.messages == []
    schedule = GaussianDiffusion.load("mine.pth").schedule
    assert (schedule.shift, schedule.zero_terminal_snr) == (2.0, True)
    assert schedule.alpha_bars[-1] == 0


@pytest.mark.parametrize("flags", ["--flip", "--min_snr 0.5", "--shift 2"])
def test_each_way_of_training_leads_to_other_weights(run, flags):
    run("plain", "--lr", 0.01)
    outcome = run("other", "--lr", 0.01, *flags.split())
    assert outcome.status == 0 and outcome.messages == []
    assert not equal(weights_of("plain.pth"), weights_of("other.pth"))


def test_epsilon_with_zero_terminal_snr_is_answered_with_the_flag_to_change(run, tmp_path):
    flags = ["--zero_terminal_snr", "--prediction", "epsilon"]
    assert_refused(run("mine", *flags), "zero_terminal_snr", "prediction v or x0")
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_the_samples_of_an_epoch(command, images, tmp_path, sampler):
    flags = ["--sampler", sampler, "--disable_tensorboard"]
    outcome = command(train.main, "train", "mine", images, *TINY, *flags)
    assert outcome.status == 0 and outcome.messages == []
    assert (tmp_path / "out" / "mine_epoch_001.png").is_file()
    assert (tmp_path / "plot" / "mine_epoch_001.png").is_file()


def test_zero_terminal_snr_mends_too_short_a_schedule(run):
    outcome = run("mine", "-t", 50, "-s", "linear", "--zero_terminal_snr", "--prediction", "v")
    assert outcome.status == 0 and outcome.messages == []


def test_too_short_a_schedule_is_warned_of(run):
    outcome = run("mine", "-t", 50, "-s", "linear")
    assert outcome.status == 0 and len(outcome.messages) == 1
    assert outcome.messages[0].startswith("warning: the last of 50 timesteps still shows")


def test_the_usual_schedule_is_not_warned_of(run):
    outcome = run("mine", "-t", 1000, "-s", "linear")
    assert outcome.status == 0 and outcome.messages == []


# Errors


@pytest.mark.parametrize(
    "flags, word",
    [
        ("-s sine", "sine"),
        ("-t 1", "timesteps"),
        ("-t 2.5", "2.5"),
        ("-i 0", "image_size"),
        ("-i 7", "6 or 8"),
        ("-i 30", "28 or 32"),
        ("-i big", "big"),
        ("-e 0", "epochs"),
        ("-e many", "many"),
        ("-b 0", "batch_size"),
        ("--batch-size -1", "batch_size"),
        ("--width 12", "12"),
        ("--lr -1", "lr"),
        ("--lr nan", "lr"),
        ("--lr fast", "fast"),
        ("--minutes nan", "minutes"),
        ("--start 0.5 --end 0.1 -s linear", "0.5"),
        ("--end 1.5", "end"),
        ("--ema 1", "ema"),
        ("--seed -1", "seed"),
        ("--steps 60 -t 50", "steps"),
        ("--sampler euler", "euler"),
        ("--shift 0", "shift"),
        ("--shift -1", "shift"),
        ("--shift nan", "shift"),
        ("--shift inf", "shift"),
        ("--shift 1000", "0.01 to 100"),
        ("--shift much", "much"),
        ("--min_snr -1", "min_snr"),
        ("--min_snr nan", "min_snr"),
        ("--flip yes", "yes"),
        ("--channels 4", "4"),
        ("--fit pad", "pad"),
        ("--prediction noise", "noise"),
        ("--device gpu", "gpu"),
        ("--device cuda:99", "cuda:99"),
        ("--nonsense", "--nonsense"),
        ("--epoch 3", "--epoch"),
        ("surplus", "surplus"),
    ],
)
def test_a_wrong_flag_is_answered_with_one_line(run, tmp_path, flags, word):
    assert_refused(run("mine", *flags.split()), word)
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


@pytest.mark.parametrize("name", ["a/b", "/a", "", ".", "..", "a/"])
def test_name_must_be_a_plain_name(run, tmp_path, name):
    assert_refused(run(name), "NAME")
    assert {path.name for path in tmp_path.iterdir()} == {"images"}


def test_the_name_of_the_autosave_is_refused(run):
    assert_refused(run("autosave"), "autosave")


@pytest.mark.parametrize("arguments", [[], ["mine"]])
def test_missing_arguments_are_answered_with_one_line(command, arguments):
    assert_refused(command(train.main, "train", *arguments), "PATH")


def test_missing_path_is_answered_with_the_bundled_sets(command):
    outcome = command(train.main, "train", "mine", "no/where", *TINY)
    assert_refused(outcome, "no/where", "faces", "digits", "brains")


def test_empty_folder_is_refused(command, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(command(train.main, "train", "mine", "empty", *TINY, *QUIET), "empty")


def test_a_file_that_is_no_zip_is_refused(command, images):
    file = images / "0000.png"
    assert_refused(command(train.main, "train", "mine", file, *TINY, *QUIET), "0000.png", ".zip")


@pytest.mark.parametrize("flags", [QUIET, []], ids=["quiet", "loud"])
def test_a_folder_that_cannot_be_made_is_refused(command, images, tmp_path, flags):
    (tmp_path / "file").touch()
    outcome = command(train.main, "train", "mine", images, *TINY, *flags, "--folder", "file")
    assert_refused(outcome, "file")


@pytest.mark.parametrize("taken", ["out", "plot", "runs"])
def test_a_file_in_place_of_a_folder_is_answered_with_one_line(command, images, tmp_path, taken):
    (tmp_path / taken).write_bytes(b"mine")
    assert_refused(command(train.main, "train", "mine", images, *TINY), taken)
    assert (tmp_path / taken).read_bytes() == b"mine"


# Nothing is lost


def test_an_existing_model_is_not_replaced(run, tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"precious")
    assert_refused(run("mine"), "mine.pth", "--force", "--resume")
    assert (tmp_path / "mine.pth").read_bytes() == b"precious"
    assert not (tmp_path / "autosave.pth").exists()


def test_pictures_of_an_earlier_run_are_not_replaced(run, tmp_path):
    picture = tmp_path / "out" / "mine_epoch_001.png"
    picture.parent.mkdir()
    picture.write_text("an earlier one")
    assert_refused(run("mine"), "mine_epoch_001.png", "--force")
    assert picture.read_text() == "an earlier one"
    assert run("other").status == 0


def test_force_and_resume_contradict_each_other(run, tmp_path):
    run("mine")
    before = snapshot(tmp_path)
    assert_refused(run("mine", "--force", "--resume"), "--resume", "--force")
    assert snapshot(tmp_path) == before


def test_force_replaces_a_model(run, tmp_path):
    (tmp_path / "mine.pth").write_bytes(b"precious")
    assert run("mine", "--force").status == 0
    assert GaussianDiffusion.load("mine.pth").image_shape == (3, 8, 8)


def test_an_unfinished_run_is_not_replaced(run, tmp_path):
    run("first", STOP)
    before = snapshot(tmp_path)
    assert_refused(run("second"), "first", "--resume", "--force")
    assert snapshot(tmp_path) == before


def test_force_replaces_an_unfinished_run(run):
    run("first", STOP)
    assert run("second", "--force").status == 0
    assert state_of("autosave.pth")["name"] == "second"


def test_a_finished_run_gives_way_to_another(run):
    run("first")
    assert run("second").status == 0
    assert weights_of("first.pth") and weights_of("second.pth")


def test_a_strange_autosave_is_not_replaced(run, tmp_path):
    (tmp_path / "autosave.pth").write_bytes(b"not ours")
    assert_refused(run("mine"), "autosave.pth")
    assert (tmp_path / "autosave.pth").read_bytes() == b"not ours"


def test_an_autosave_that_a_notebook_wrote_is_not_replaced(run, tmp_path):
    config = TrainConfig(image_size=8, width=8, timesteps=20, epochs=9, device="cpu")
    pixels = torch.zeros(6, 3, 8, 8, dtype=torch.uint8)
    training.Trainer(build(config, 3), pixels, config).save("autosave.pth")
    before = (tmp_path / "autosave.pth").read_bytes()
    assert_refused(run("mine"), "autosave.pth")
    assert_refused(run("mine", "--resume"), "autosave.pth")
    assert (tmp_path / "autosave.pth").read_bytes() == before


# Resuming


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(run, resume):
    run("whole", "-e", 3, "--folder", "whole", "--lr", 0.01)
    stopped = run("part", "-e", 3, "--lr", 0.01, STOP)
    assert stopped.status == 0 and "stopped after step 1 of 6" in stopped.out
    assert "--resume" in stopped.out
    assert not equal(weights_of("part.pth"), weights_of("whole/whole.pth"))
    outcome = resume("part", *QUIET)
    assert outcome.status == 0 and outcome.messages == []
    assert equal(weights_of("part.pth"), weights_of("whole/whole.pth"))
    part, whole = state_of("autosave.pth"), state_of("whole/autosave.pth")
    assert part["step"] == whole["step"] == 6
    for name, weight in whole["weights"].items():
        assert torch.equal(part["weights"][name], weight)


def test_a_run_that_stopped_twice_is_the_same_too(run, resume):
    run("whole", "-e", 2, "--folder", "whole")
    run("part", "-e", 2, STOP)
    assert "after step 2 of 4" in resume("part", STOP).out
    assert resume("part").status == 0
    assert equal(weights_of("part.pth"), weights_of("whole/whole.pth"))


def test_settings_of_a_run_are_taken_over(run, resume):
    run("mine", "-e", 2, "--prediction", "v", "--lr", 0.005, STOP)
    before = state_of("autosave.pth")["config"]
    resume("mine")
    after = state_of("autosave.pth")["config"]
    assert {**before, "device": "cpu"} == after


def test_more_epochs_train_a_finished_run_further(run, resume):
    run("mine", "-e", 1)
    assert resume("mine", "-e", 3).status == 0
    assert (state_of("autosave.pth")["step"], state_of("autosave.pth")["steps"]) == (6, 6)


def test_images_and_log_may_be_disabled_from_now_on(train_command, images, resume, tmp_path):
    train_command("mine", images, *TINY, "-e", 2, STOP)
    assert resume("mine", "--disable_images").status == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "flags, word",
    [
        ("--lr 0.5", "--lr"),
        ("-b 2", "--batch_size"),
        ("-t 21", "--timesteps"),
        ("-s linear", "--beta_schedule"),
        ("-i 16", "--image_size"),
        ("--seed 1", "--seed"),
        ("--flip", "--flip"),
        ("--shift 2", "--shift"),
        ("--zero_terminal_snr", "--zero_terminal_snr"),
        ("--min_snr 3", "--min_snr"),
        ("--prediction v", "--prediction"),
    ],
)
def test_what_would_change_the_run_is_refused_by_name(run, resume, tmp_path, flags, word):
    run("mine", "-e", 2, STOP)
    before = snapshot(tmp_path)
    assert_refused(resume("mine", *flags.split()), word)
    assert snapshot(tmp_path) == before


def test_settings_that_agree_with_the_run_may_be_repeated(run, resume):
    run("mine", "-e", 2, STOP)
    assert resume("mine", "-b", 4, "-i", 8, "-s", "cosine").status == 0


def test_the_new_settings_of_a_run_are_taken_over_bit_for_bit(run, resume):
    flags = ["-e", 2, "--flip", "--shift", 2, "--zero_terminal_snr", "--prediction", "v"]
    flags += ["--min_snr", 5, "--lr", 0.01]
    run("whole", *flags, "--folder", "whole")
    run("part", *flags, STOP)
    outcome = resume("part", *QUIET)
    assert outcome.status == 0 and outcome.messages == []
    assert equal(weights_of("part.pth"), weights_of("whole/whole.pth"))


NEWER = ("flip", "shift", "zero_terminal_snr", "min_snr")


@pytest.fixture
def old_run(run, tmp_path):
    """A run begun before there were the settings of NEWER."""
    run("mine", "-e", 2, STOP)
    content = load_checkpoint(tmp_path / "autosave.pth")
    for name in NEWER:
        del content["training"]["config"][name]
        content["schedule"].pop(name, None)
    torch.save(content, tmp_path / "autosave.pth")


def test_a_run_of_an_older_version_goes_on_with_the_defaults(old_run, resume):
    assert resume("mine").status == 0
    assert state_of("autosave.pth")["config"]["shift"] == 1.0
    assert state_of("autosave.pth")["step"] == 4


def test_a_setting_that_a_run_of_an_older_version_did_not_have_is_refused(old_run, resume):
    assert_refused(resume("mine", "--flip"), "--flip")


def test_there_must_be_something_to_resume(resume):
    assert_refused(resume("mine"), "autosave.pth")


def test_a_run_of_another_name_is_not_resumed(run, resume):
    run("mine", "-e", 2, STOP)
    assert_refused(resume("yours"), "mine", "yours")


def test_a_finished_run_is_not_resumed(run, resume):
    run("mine", "-e", 2)
    assert_refused(resume("mine"), "--epochs")
    assert_refused(resume("mine", "-e", 1), "--epochs")


def test_other_images_are_refused(run, resume, images, tmp_path):
    run("mine", "-e", 2, STOP)
    before = (tmp_path / "autosave.pth").read_bytes()
    noise_image(9).save(images / "more.png")
    assert_refused(resume("mine"), "6 images", "7")
    assert (tmp_path / "autosave.pth").read_bytes() == before


def test_as_many_images_without_colour_are_refused(run, command, tmp_path):
    run("mine", "-e", 2, STOP)
    make_images(tmp_path / "grey", grey=True)
    outcome = command(train.main, "train", "mine", "grey", "--device", "cpu", "--resume")
    assert_refused(outcome)


def test_a_model_without_its_run_is_not_resumed(run, resume, tmp_path):
    run("mine", "-e", 2)
    shutil.copy(tmp_path / "mine.pth", tmp_path / "autosave.pth")
    assert_refused(resume("mine"), "autosave.pth")


# As a process of its own


def start(*arguments: object, **settings) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **settings,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly_and_it_can_be_resumed(images, resume, tmp_path, number):
    flags = [*TINY, *QUIET, "-e", 100_000]
    process = start("-m", "diffusion_lib.train", "mine", images, *flags, cwd=tmp_path)
    try:
        for _ in range(2400):  # two minutes: a loaded machine may take its time to import torch
            if (tmp_path / "autosave.pth").exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err and "stopped after step" in out
    assert equal(weights_of("mine.pth"), weights_of("autosave.pth"))
    step = state_of("autosave.pth")["step"]
    assert resume("mine", "-e", step // 2 + 2).status == 0
    assert state_of("autosave.pth")["step"] == 2 * (step // 2 + 2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("train mine nowhere -e 0", "train: error: epochs must be at least 1, not 0\n"),
        ("predict nowhere -i 0", "predict: error: num_images must be at least 1, not 0\n"),
    ],
)
def test_an_error_is_the_exit_status_of_the_process(tmp_path, arguments, message):
    program, *rest = arguments.split()
    process = start("-m", f"diffusion_lib.{program}", *rest, cwd=tmp_path)
    out, err = process.communicate()
    assert (process.returncode, out, err) == (2, "", message)


@pytest.mark.parametrize("program", ["train", "predict"])
def test_help_does_not_wait_for_torch(program):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{program}', '--help']\n"
        "try:\n"
        f"    runpy.run_module('diffusion_lib.{program}', run_name='__main__')\n"
        "finally:\n"
        "    print('heavy:', {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules))\n"
    )
    process = start("-c", code)
    out, err = process.communicate()
    assert process.returncode == 0 and err == ""
    assert "usage" in out and out.endswith("heavy: set()\n")


# A dry run


def test_a_dry_run_says_what_the_run_takes_and_leaves_nothing(run, tmp_path):
    before = snapshot(tmp_path)
    outcome = run("mine", "--dry_run", "--accumulate", 2)
    assert outcome.status == 0 and snapshot(tmp_path) == before
    said = dict(line.split(maxsplit=1) for line in outcome.out.splitlines() if line)
    assert said["accumulate"] == "2" and said["images"] == "6 of shape (3, 8, 8)"
    assert said["steps"].startswith("2: 2 an epoch")
    for quantity in ("network", "memory", "time"):
        assert any(character.isdigit() for character in said[quantity])


def test_a_dry_run_of_a_run_to_resume_counts_what_is_left(run, resume):
    run("mine", "-e", 3)
    outcome = resume("mine", "-e", 5, "--dry-run")
    assert outcome.status == 0 and "steps               4: 2 an epoch" in outcome.out


def test_flow_alone_gives_a_run_of_flow_matching_that_predict_needs_nothing_for(
    command, images, tmp_path
):
    small = ("-i", 8, "--width", 32, "-b", 4, "-e", 1, "-t", 20, "--device", "cpu", *QUIET)
    outcome = command(train.main, "train", "mine", images, *small, "--flow")
    assert outcome.status == 0 and outcome.messages == []
    model = GaussianDiffusion.load("mine.pth")
    assert (model.schedule.name, model.prediction) == ("straight", "velocity")
    config = load_checkpoint("autosave.pth")["training"]["config"]
    assert config["timestep_sampling"] == "logit_normal"
    outcome = command(predict.main, "predict", "mine.pth", "-i", 2, "--device", "cpu")
    assert outcome.status == 0 and outcome.messages == []
    assert sorted(path.name for path in tmp_path.glob("predict*")) == [
        "predict0.png",
        "predict1.png",
    ]


def test_a_chosen_setting_goes_before_what_flow_is_short_for(run):
    run("mine", "--flow", "--prediction", "x0", "--timestep_sampling", "uniform")
    config = load_checkpoint("autosave.pth")["training"]["config"]
    names = "beta_schedule", "prediction", "timestep_sampling"
    assert [config[name] for name in names] == ["cosine", "x0", "uniform"]


def test_a_run_with_flow_is_resumed_with_and_without_it(run, resume):
    run("mine", "-s", "straight", "--flow")
    assert resume("mine", "-e", 2, "--flow").status == 0
    assert resume("mine", "-e", 3).status == 0
    run("plain", "--force")
    assert_refused(resume("plain", "-e", 2, "--flow"), "--beta_schedule straight")


def test_logit_normal_timesteps_reach_the_training(run):
    run("plain", "--lr", 0.01, "--timestep_sampling", "uniform")
    run("other", "--lr", 0.01, "--timestep_sampling", "logit_normal")
    assert not equal(weights_of("plain.pth"), weights_of("other.pth"))


# Labels


@pytest.fixture
def folders(tmp_path) -> Path:
    """Six coloured images in two folders, and a table with two columns."""
    for number in range(6):
        folder = tmp_path / "pets" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        noise_image(number).save(folder / f"{number}.png")
    rows = [f"{('cat', 'dog')[n % 2]}/{n}.png,{'ab'[n // 3]},{n % 3}" for n in range(6)]
    (tmp_path / "pets" / "metadata.csv").write_text("\n".join(["file_name,group,size", *rows]))
    return tmp_path / "pets"


def test_labels_come_from_folders_and_are_in_the_model(command, folders, tmp_path):
    outcome = command(train.main, "train", "pets", folders, *TINY, "--labels")
    assert outcome.status == 0 and "2 classes by folder: cat, dog" in outcome.out
    assert GaussianDiffusion.load("pets.pth").classes == {"folder": ["cat", "dog"]}
    with Image.open("out/pets_epoch_001.png") as picture:  # two rows of sixteen, and their names
        assert picture.height == 2 * 66 + 2 and picture.width > 16 * 66 + 2
    log = EventAccumulator(str(tmp_path / "runs" / "pets"), {"images": 0}).Reload()
    assert set(log.Tags()["images"]) == {"samples/cat", "samples/dog"}


def test_labels_come_from_columns_and_a_run_goes_on_with_them(command, folders):
    flags = [*TINY, *QUIET, "--labels", "group,size"]
    assert command(train.main, "train", "pets", folders, *flags).status == 0
    model = GaussianDiffusion.load("pets.pth")
    assert model.classes == {"group": ["a", "b"], "size": ["0", "1", "2"]}
    more = command(train.main, "train", "pets", folders, "-e", 2, "--device", "cpu", "--resume")
    assert more.status == 0 and "3 classes by size: 0, 1, 2" in more.out
    other = command(train.main, "train", "pets", folders, "-e", 3, "--resume", "--labels")
    assert_refused(other, "--labels folder cannot be changed", "group,size")


def test_labels_that_are_not_there_are_answered_with_one_line(command, images, folders):
    flat = command(train.main, "train", "mine", images, *TINY, "--labels")
    assert_refused(flat, "folder")
    wrong = command(train.main, "train", "mine", folders, *TINY, "--labels", "grop")
    assert_refused(wrong, "grop", "group")
