"""The check of the environment: each thing that can be wrong is named, with what mends it."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diffusion_lib import environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_this_environment_is_in_order():
    assert environment.problems() == []
    result = subprocess.run(
        [sys.executable, "-m", "diffusion_lib.environment"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0
    assert torch.__version__ in result.stdout and result.stdout.endswith("All is well.\n")


def test_it_asks_for_what_the_project_does():
    project = (ROOT / "pyproject.toml").read_text()
    needed = tomllib.loads(project)["project"]["dependencies"]
    asked = [f"{name}>={low}" if low else name for name, low in environment.PACKAGES.items()]
    assert asked == needed


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2.15.0+cu132", (2, 15, 0)), ("8", (8,)), ("2.11.0a0+git1", (2, 11, 0)), ("", ())],
)
def test_versions_are_compared_by_their_numbers(text, numbers):
    assert environment.version(text) == numbers


def test_a_missing_and_an_old_package_are_named_with_the_command_that_mends_it():
    def installed(name: str) -> str:
        if name == "ipywidgets":
            raise PackageNotFoundError(name)
        return "2.9.1" if name == "torch" else "99"

    old, missing = environment.package_problems(installed)
    assert "torch is 2.9.1" in old and "%pip install --upgrade 'torch>=2.11'" in old
    assert "ipywidgets is not installed" in missing and "%pip install 'ipywidgets>=7.7'" in missing


def test_a_gpu_that_torch_cannot_use_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for listed, count in (("GPU 0: NVIDIA T4\n", 1), ("", 0)):
        answer = SimpleNamespace(returncode=0, stdout=listed)
        monkeypatch.setattr(subprocess, "run", lambda *_, _answer=answer, **__: _answer)
        assert len(environment.torch_problems()) == count


def test_a_gpu_that_does_not_compute_is_named(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("CUDA error: out of luck\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", broken)
    (problem,) = environment.torch_problems()
    assert "out of luck" in problem and "restart the kernel" in problem and "\n" not in problem


def test_a_torchvision_of_another_torch_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    (problem,) = environment.torch_problems()
    assert "torchvision does not fit" in problem


def test_a_cache_without_room_or_rights_is_named(monkeypatch, tmp_path):
    assert environment.disk_problems(tmp_path / "new" / "folder") == []
    file = tmp_path / "file"
    file.touch()
    assert "cannot be written to" in environment.disk_problems(file / "below")[0]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5e6))
    assert "only 5 MB are free" in environment.disk_problems(tmp_path)[0]


def test_problems_end_with_status_2(monkeypatch, capsys):
    monkeypatch.setattr(environment, "problems", lambda: ["torch is missing: install it"])
    with pytest.raises(SystemExit) as stop:
        environment.main()
    assert stop.value.code == 2
    assert capsys.readouterr().out == "Problem: torch is missing: install it\n"
