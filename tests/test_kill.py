"""A run that is killed again and again loses nothing that was saved."""

import os
import subprocess
import sys

import pytest

from diffusion_lib.files import load_checkpoint

pytestmark = pytest.mark.slow

# Children are forked by a process that has imported everything, so that each starts at once.
PROGRAM = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from diffusion_lib import train
from diffusion_lib.files import load_checkpoint

torch.set_num_threads(1)
folder, kills = Path(sys.argv[1]), int(sys.argv[2])
arguments = [
    *("mine", "digits", "-i8", "--width=8", "-t20", "-b500", "--epochs=8", "--report_every=1"),
    *("--autosave_minutes=1e-9", "--disable_images", "--disable_tensorboard", "--device=cpu"),
    *("--folder", str(folder)),
]
autosave = folder / "autosave.pth"
chance = random.Random(0)

def go_on():
    train.main([*arguments, *(["--resume"] if autosave.exists() else [])])

def saved():
    return autosave.stat().st_ino if autosave.exists() else 0

for _ in range(kills):
    before, child = saved(), os.fork()
    if child == 0:
        go_on()
        os._exit(0)
    while saved() == before:  # it got somewhere, however slow the machine is
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the run ended before it was killed"
    print("saved", load_checkpoint(autosave)["training"]["step"])
go_on()
"""


def run(folder, kills: int) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(kills)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path):
    said = run(tmp_path / "killed", kills=8)
    steps = [int(line.split()[1]) for line in said if line.startswith("saved ")]
    assert len(steps) == 8 and steps == sorted(steps) and steps[0] < steps[-1]
    run(tmp_path / "whole", kills=0)
    paths = [tmp_path / name / "autosave.pth" for name in ("killed", "whole")]
    killed, whole = map(load_checkpoint, paths)
    for part in (lambda run: run["weights"], lambda run: run["training"]["weights"]):
        some, others = part(killed), part(whole)
        assert all(others[name].equal(values) for name, values in some.items())
    stats = [(tmp_path / name / "runs/mine/stats.jsonl") for name in ("killed", "whole")]
    assert len({len(file.read_text().splitlines()) for file in stats}) == 1
