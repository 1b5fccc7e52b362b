"""Checkpoints on disk keep working: files that earlier versions wrote, in tests/fixtures.

    train run digits -i8 --width=8 --blocks=1 --warmup=0 -t20 -b1000 --epochs=2 --report_every=1
        -s cosine --shift=0.5 --prediction=v --disable_images --disable_tensorboard --device=cpu

format_1.pth is the model at the end of that run, format_1_run.pth and format_2_run.pth are its
`autosave.pth` after one of ten steps (`--minutes 1e-9`), and so on. From format 1 to 2 some names
changed; format 3 has classes.
"""

import shutil
from pathlib import Path

import pytest
import torch

from diffusion_lib import GaussianDiffusion, sample, train
from diffusion_lib.files import FORMAT, load_checkpoint

FIXTURES = Path(__file__).parent / "fixtures"
RUNS = [f"format_{number}_run.pth" for number in range(1, FORMAT + 1)]
EVERY_RUN = pytest.mark.parametrize("name", RUNS)
QUIET = ["--disable_images", "--disable_tensorboard", "--device=cpu"]


def resume(command, path: Path, tmp_path: Path, *flags: str):
    shutil.copy(path, tmp_path / "autosave.pth")
    return command(train.main, "train", "run", "digits", *QUIET, "--resume", *flags)


@EVERY_RUN
def test_a_fixture_has_the_format_of_its_name(name):
    assert torch.load(FIXTURES / name)["format"] == int(name.split("_")[1])
    assert load_checkpoint(FIXTURES / name)["format"] == FORMAT


@pytest.mark.parametrize("name", ["format_1.pth", *RUNS])
def test_a_model_of_an_earlier_version_draws(name):
    model = GaussianDiffusion.load(FIXTURES / name)
    assert (model.prediction, model.schedule.name, model.schedule.shift) == ("v", "cosine", 0.5)
    samples = sample(model, 2, steps=3)
    assert samples.shape == (2, 1, 8, 8) and samples.std() > 0.1


def test_a_model_of_an_earlier_version_can_be_saved_anew(tmp_path):
    old = GaussianDiffusion.load(FIXTURES / "format_1.pth")
    old.save(tmp_path / "new.pth")
    assert torch.load(tmp_path / "new.pth")["format"] == FORMAT
    new = GaussianDiffusion.load(tmp_path / "new.pth")
    assert torch.equal(sample(old, 2, steps=3), sample(new, 2, steps=3))


@pytest.mark.slow
@EVERY_RUN
def test_a_run_of_an_earlier_version_continues_to_where_that_version_would_have_come(
    command, tmp_path, name
):
    outcome = resume(command, FIXTURES / name, tmp_path)
    assert outcome.status == 0 and outcome.messages == []
    expected = load_checkpoint(FIXTURES / "format_1.pth")["weights"]
    found = load_checkpoint(tmp_path / "run.pth")["weights"]
    started = load_checkpoint(FIXTURES / name)["weights"]
    assert found.keys() == expected.keys()
    for key, values in expected.items():  # up to the rounding of another processor
        torch.testing.assert_close(found[key], values, atol=1e-4, rtol=0)
    changes = [(found[key] - started[key]).abs().max().item() for key in found]
    assert max(changes) > 1e-3


@EVERY_RUN
def test_what_would_change_a_run_of_an_earlier_version_is_refused(command, tmp_path, name):
    outcome = resume(command, FIXTURES / name, tmp_path, "--lr", "0.01")
    assert outcome.status == 2 and "--lr" in outcome.messages[0]


def test_a_run_with_an_option_that_is_gone_is_not_continued_but_its_model_draws(command, tmp_path):
    checkpoint = torch.load(FIXTURES / "format_1_run.pth")
    checkpoint["training"]["config"]["continuous"] = True
    torch.save(checkpoint, tmp_path / "old.pth")
    outcome = resume(command, tmp_path / "old.pth", tmp_path)
    assert outcome.status == 2
    (message,) = outcome.messages
    assert "--continuous, which no longer exists" in message
    assert not (tmp_path / "run.pth").exists()
    assert sample(GaussianDiffusion.load(tmp_path / "autosave.pth"), 1, steps=2).isfinite().all()


def test_a_model_with_labels_draws_them():
    """format_3_labels_run.pth is the same run with `--labels label`."""
    model = GaussianDiffusion.load(FIXTURES / "format_3_labels_run.pth")
    assert model.classes == {"label": list("0123456789")} and model.network.classes == (10,)
    assert sample(model, 2, steps=3, labels=["3", "7"]).std() > 0.1
