"""Several processes train as one does: started by torchrun, talking through gloo."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diffusion_lib import InputError, TrainConfig, Trainer, distributed
from diffusion_lib.diffusion import build
from diffusion_lib.files import load_checkpoint

pytestmark = pytest.mark.slow

RUN = ["mine", "digits", "-i8", "--width=8", "-t20", "-b500", "--epochs=2", "--report_every=4"]
RUN += ["--network=unet", "--optimizer=adamw", "--precision=float32"]
QUIET = ["--disable_images", "--disable_tensorboard", "--device=cpu"]


def command(processes: int, *arguments: str) -> list[str]:
    alone = [sys.executable, "-m"]
    torchrun = [*alone, "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    start = [*torchrun, "-m"] if processes > 1 else alone
    return [*start, "diffusion_lib.train", *RUN, *QUIET, *arguments]


def train(folder: Path, processes: int, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command(processes, *arguments), "--folder", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def state(folder: Path) -> dict:
    return load_checkpoint(folder / "autosave.pth")


def assert_alike(one: dict, other: dict) -> None:
    """The same run, up to the order in which numbers were added."""
    assert one["training"]["step"] == other["training"]["step"] == 20
    for kind in (one["weights"], one["training"]["weights"]):
        others = other["weights"] if kind is one["weights"] else other["training"]["weights"]
        for name, values in kind.items():
            torch.testing.assert_close(others[name], values, atol=2e-4, rtol=0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("alone")
    result = train(folder, 1)
    assert result.returncode == 0, result.stderr
    return state(folder)


def test_two_processes_do_what_one_does(tmp_path, alone):
    result = train(tmp_path, 2, "--accumulate", "2")
    assert result.returncode == 0, result.stderr
    assert_alike(alone, state(tmp_path))
    assert result.stdout.count("images of 8x8") == 1  # only one process speaks
    lines = (tmp_path / "runs/mine/stats.jsonl").read_text().splitlines()
    assert len(lines) == 6  # at steps 4, 8, 10, 12, 16, 20, once each


def test_two_processes_do_what_one_does_with_labels(tmp_path):
    labels = ["--labels", "label", "--label_dropout", "0.3"]
    for processes in (1, 2):
        result = train(tmp_path / str(processes), processes, *labels)
        assert result.returncode == 0, result.stderr
    one, two = state(tmp_path / "1"), state(tmp_path / "2")
    assert one["classes"] == two["classes"] == {"label": list("0123456789")}
    assert_alike(one, two)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, alone):
    first = command(2, "--folder", str(tmp_path), "--report_every", "1", "--minutes", "1e-6")
    subprocess.run(
        first, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert 0 < state(tmp_path)["training"]["step"] < 20
    result = train(tmp_path, 1, "--resume", "--minutes", "0")
    assert result.returncode == 0, result.stderr
    assert_alike(alone, state(tmp_path))


def start(folder: Path) -> subprocess.Popen:
    """A run of two processes that would take long, once it is under way."""
    process = subprocess.Popen(
        [*command(2, "--folder", str(folder), "--report_every", "1", "--epochs", "1000")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    stats = folder / "runs/mine/stats.jsonl"
    while not (stats.exists() and len(stats.read_text().splitlines()) > 12):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return process


def test_ctrl_c_ends_all_processes_and_saves(tmp_path):
    process = start(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=60)
    assert state(tmp_path)["training"]["step"] >= 12
    assert (tmp_path / "mine.pth").exists()


def test_a_process_that_dies_ends_the_run_with_its_reason(tmp_path):
    process = start(tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "SIGKILL" in errors or "exitcode  : -9" in errors
    assert state(tmp_path)["training"]["step"] >= 10  # the first epoch's is whole


def test_a_batch_that_cannot_be_shared_out_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    config = TrainConfig(image_size=8, width=8, batch_size=3, device="cpu")
    pixels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"batch of 3 .* 2 processes"):
        Trainer(build(config, 1), pixels, config)
