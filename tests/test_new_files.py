"""Files that must not take another's place: what `predict` writes, also two of it at once."""

import os
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from diffusion_lib.files import save_new


def names(folder: Path):
    return (folder / f"predict{number}.png" for number in count())


def written(text: str):
    """A function that writes a text to the path that it gets."""
    return lambda path: path.write_text(text)


def test_a_new_file_gets_the_first_free_name(tmp_path):
    for number in range(3):
        path = save_new(written(str(number)), names(tmp_path))
        assert path == tmp_path / f"predict{number}.png" and path.read_text() == str(number)
    assert len(list(tmp_path.iterdir())) == 3  # nothing hidden is left


def test_a_name_that_is_taken_meanwhile_is_not_replaced(tmp_path):
    def slow(path: Path) -> None:
        path.write_text("mine")
        (tmp_path / "predict0.png").write_text("another's")

    assert save_new(slow, names(tmp_path)).name == "predict1.png"
    assert (tmp_path / "predict0.png").read_text() == "another's"


def test_a_full_disk_leaves_nothing(tmp_path):
    def full(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_new(full, names(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_file_systems_without_links_will_do(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert [save_new(written(str(i)), names(tmp_path)).name for i in range(2)] == [
        "predict0.png",
        "predict1.png",
    ]
    assert (tmp_path / "predict0.png").read_text() == "0"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_two_predicts_at_once_keep_all_images(tmp_path):
    command = [sys.executable, "-m", "diffusion_lib.predict", "digits", "--num_images", "6"]
    command += ["--steps", "2", "--device", "cpu", "--batch_size", "1", "--output", str(tmp_path)]
    start = partial(subprocess.Popen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    both = [start([*command, "--seed", seed]) for seed in "12"]
    printed = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert {path.name for path in tmp_path.iterdir()} == {f"predict{i}.png" for i in range(12)}
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 12
