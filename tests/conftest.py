"""Fixtures of all tests: a cache of their own, a small folder of images, and command lines."""

import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from helpers import make_images
from hypothesis import settings

from diffusion_lib import cli

settings.register_profile("project", deadline=None, database=None, derandomize=True)
settings.load_profile("project")
torch.set_num_threads(1)  # on tiny tensors several threads do little but wait for each other

PROGRESS_BAR = re.compile(r"\d+%\||\[\d\d:\d\d")


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory) -> Path:
    """A folder for decoded images that is not the user's. Processes that tests start inherit it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of six coloured images of 8x8 pixels."""
    return make_images(tmp_path / "images")


@pytest.fixture
def gpu(monkeypatch) -> Callable[[int, int], torch.device]:
    """gpu(7, 5) is the second GPU here, of compute capability 7.5; nothing else is known of it."""

    def make(*capability: int) -> torch.device:
        known = {torch.device("cuda", 1): capability}
        monkeypatch.setattr(torch.cuda, "get_device_capability", known.__getitem__)
        return torch.device("cuda", 1)

    return make


@dataclass
class Outcome:
    """What a command line did: its exit status, and what it printed, without progress bars."""

    status: int
    out: str
    messages: list[str]


@pytest.fixture
def command(monkeypatch, capsys, tmp_path) -> Callable[..., Outcome]:
    """command(main, name, argument, ...) calls a command line in tmp_path, as a shell would."""
    monkeypatch.chdir(tmp_path)

    def call(main: Callable[[], None], name: str, *arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        with warnings.catch_warnings():  # also puts back what `cli.run` makes of warnings
            warnings.simplefilter("default")
            try:
                status = cli.run(main, name)
            except SystemExit as stop:
                status = stop.code
        out, err = capsys.readouterr()
        lines = [line for line in re.split(r"[\r\n]+", err) if line.strip()]
        return Outcome(status, out, [line for line in lines if not PROGRESS_BAR.search(line)])

    return call
