"""A run that is killed, at any moment and by any signal, loses nothing that was saved."""

import os
import subprocess
import sys

import pytest
from helpers import make_images

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
    *("mine", "digits", "-i8", "--network=unet", "--width=8", "-t20", "-b500", "--epochs=8"),
    *("--autosave_minutes=1e-9", "--disable_images", "--disable_tensorboard", "--device=cpu"),
    *("--report_every=1", "--folder", str(folder)),
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


# Each child gets a signal, alone or with its group, in one of the phases of a run.
EVERY_SIGNAL = """
import itertools, os, shutil, signal, sys
from pathlib import Path
import torch
from diffusion_lib import cli, diffusion, recording, train
from diffusion_lib.files import load_checkpoint
from diffusion_lib.images import decode
from diffusion_lib.training import Trainer

torch.set_num_threads(1)
decode.CHUNK, decode.SAVE_SECONDS = 2, 0
images, base = Path(sys.argv[1]), Path(sys.argv[2])
PHASES = {
    "reading": (decode, "read_pictures", 5),
    "training": (Trainer, "report", 2),
    "saving": (diffusion, "save_file", 1),
    "sampling": (recording, "trajectory", 1),
}
folder = base / "run"
arguments = [
    *("mine", str(images), "-i8", "--network=unet", "--width=8", "-t20", "-b2", "--epochs=2"),
    *("--device=cpu", "--steps=2", "--report_every=1", "--folder", str(folder)),
]

def go(prepare=lambda: None):
    child = os.fork()
    if child == 0:
        os.setsid()
        prepare()
        resume = ["--resume"] if (folder / "autosave.pth").exists() else []
        os._exit(cli.run(lambda: train.main([*arguments, *resume]), "train"))
    return os.waitpid(child, 0)[1]

def weights():
    saved = load_checkpoint(folder / "autosave.pth")
    return [*saved["weights"].values(), *saved["training"]["weights"].values()]

os.environ["XDG_CACHE_HOME"] = str(base / "cache")
assert go() == 0
whole = weights()
names = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")
for phase, name, group in itertools.product(PHASES, names, (False, True)):
    number, case = getattr(signal, name), f"{phase} {name} {'group' if group else 'process'}"
    shutil.rmtree(folder)
    shutil.rmtree(base / "cache")
    owner, function, calls = PHASES[phase]
    usual, fsync = getattr(owner, function), os.fsync

    def send(file=None):
        os.fsync = fsync
        (os.killpg if group else os.kill)(os.getpid(), number)

    def interrupted(*given, **more):
        global calls
        calls -= 1
        if calls == 0 and phase == "saving":
            os.fsync = send  # when the file is written in part
        elif calls == 0:
            send()
        return usual(*given, **more)

    def prepare():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        setattr(owner, function, interrupted)

    status = go(prepare)
    if name == "SIGKILL":
        expected = os.WIFSIGNALED(status) and os.WTERMSIG(status) == number
    elif phase == "reading":  # there is no run yet
        expected = status == (130 << 8 if name == "SIGINT" else number)
    else:
        expected = status == 0 and load_checkpoint(folder / "mine.pth")
    assert expected, (case, status)
    assert go() == 0, case
    assert all(a.equal(b) for a, b in zip(whole, weights(), strict=True)), case
    print("sound", case)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_every_signal_in_every_phase_costs_nothing(tmp_path):
    images = make_images(tmp_path / "images", count=10)
    command = [sys.executable, "-c", EVERY_SIGNAL, str(images), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    assert result.stdout.count("sound") == 32
