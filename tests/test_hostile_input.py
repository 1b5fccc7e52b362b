"""Options, names and logs that no one should give, and that someone will: one line each."""

import signal

import pytest
import torch

from diffusion_lib import InputError, TrainConfig, Trainer, build, cli, find_device, predict, train
from diffusion_lib.recording import record
from diffusion_lib.stopping import SIGNALS, stop_on_signals

TINY = TrainConfig(image_size=8, width=8, patch=1, blocks=1, batch_size=4, epochs=2, device="cpu")
PIXELS = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch_size", "99999999999999999999"],
        ["--workers", "100000"],
        ["--min_snr", "inf"],
        ["--lr", "nan"],
        ["--epochs", str(2**62)],
        ["--device", "cpu:99"],
    ],
    ids=" ".join,
)
def test_numbers_that_cannot_be_are_refused(command, images, flags):
    outcome = command(train.main, "train", "mine", images, *flags)
    assert outcome.status == 2
    assert len(outcome.messages) == 1
    assert flags[0][2:].replace("-", "_") in outcome.messages[0]


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\x1b[2J", "n" * 300, "autosave", ""])
def test_names_that_no_file_should_have_are_refused_at_once(command, images, name):
    outcome = command(train.main, "train", name, images)
    assert outcome.status == 2
    assert len(outcome.messages) == 1 and "NAME" in outcome.messages[0]


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "n" * 300])
def test_so_are_those_of_images_to_make(command, name):
    outcome = command(predict.main, "predict", "faces", "--name", name)
    assert outcome.status == 2
    assert len(outcome.messages) == 1 and "--name" in outcome.messages[0]


def test_values_of_another_type_are_refused():
    for wrong in ({"epochs": "3"}, {"flip": 1}, {"epochs": True}, {"lr": None}, {"seed": 1.5}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            TrainConfig(**wrong)
    assert TrainConfig(steps=None, lr=1e-4).steps is None


def test_the_cpu_is_one_device():
    assert find_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="cpu:99"):
        find_device("cpu:99")


def test_codes_that_steer_a_terminal_are_written_out():
    assert cli.printable("a\x1b[2J\nü") == "a\\x1b[2J\\nü"


def test_damaged_lines_of_a_log_are_dropped_and_the_rest_is_kept(tmp_path):
    log = tmp_path / "runs" / "mine" / "stats.jsonl"
    log.parent.mkdir(parents=True)
    log.write_bytes(b'{"step": 0}\n{"step": 1\x00\xff\n[3]\n{"step": "x"}\n{"step": 0, "half')
    for _ in record(Trainer(build(TINY, channels=1), PIXELS, TINY), "mine", tmp_path):
        pass
    lines = log.read_text().splitlines()
    assert lines[0] == '{"step": 0}'
    assert all(line.startswith('{"step": ') and line.endswith("}") for line in lines)


@pytest.mark.parametrize("number", SIGNALS)
def test_every_signal_that_ends_a_program_ends_a_run_cleanly(number):
    before = signal.signal(number, lambda *_: None)  # the tests may run under nohup
    try:
        run = Trainer(build(TINY, channels=1), PIXELS, TINY)
        with stop_on_signals(run):
            signal.raise_signal(number)
            assert run.stopping
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored():
    """`nohup` lets a run go on when its terminal is closed."""
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("no such signal here")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = Trainer(build(TINY, channels=1), PIXELS, TINY)
        with stop_on_signals(run):
            signal.raise_signal(signal.SIGHUP)
            assert not run.stopping
    finally:
        signal.signal(signal.SIGHUP, before)
