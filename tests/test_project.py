"""The project's own promises: what it installs, what its README says, what it carries."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from diffusion_lib import config, samplers, schedules, spacing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_conda_installs_what_pip_does():
    """environment.yml adds only Python and pip, and leaves the rest to pyproject.toml."""
    environment = (ROOT / "environment.yml").read_text()
    entries = [line.strip().removeprefix("- ") for line in environment.splitlines() if "- " in line]
    assert entries == [
        "conda-forge",
        f"python {PROJECT['requires-python']}",
        "pip",
        "pip:",
        "-e .[dev]",
    ]
    assert f"name: {PROJECT['name']}" in environment


def test_the_readme_names_only_targets_flags_and_files_that_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)", readme))
    assert {"lab", "test", "demo"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", readme):
        assert (ROOT / link).exists(), link
    for module in re.findall(r"python -m (diffusion_lib\.\w+)", readme):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_only_the_agreed_folders_are_at_the_top():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    folders = {name.split("/")[0] for name in listed if "/" in name}
    assert folders == {"notebooks", "diffusion_lib", "data", "tests", ".ci"}


def test_a_file_of_the_package_imports_only_from_floors_below():
    floors = [
        {"errors"},
        {"config", "files", "distributed"},
        {"schedules", "networks", "images", "devices"},
        {"batches", "features", "toys", "spacing"},
        {"diffusion"},
        {"samplers", "metrics"},
        {"training"},
        {"plots", "stopping", "exercises", "estimate"},
        {"recording", "widgets"},
        {"environment", "cli", "train", "predict", "evaluate", "benchmark"},
    ]
    height = {name: i for i, floor in enumerate(floors) for name in floor}
    rooms = {}
    for path in (ROOT / "diffusion_lib").rglob("*.py"):
        room = path.relative_to(ROOT / "diffusion_lib").with_suffix("").parts[0]
        rooms[room] = rooms.get(room, "") + path.read_text()
    assert set(rooms) - {"__init__"} == set(height)
    for name in set(height) - {"train", "predict", "evaluate", "benchmark"}:
        imported = set(re.findall(r"from diffusion_lib\.(\w+)[\w.]* import", rooms[name])) - {name}
        assert all(height[other] < height[name] for other in imported), f"{name}: {imported}"


def test_the_names_on_the_command_line_are_those_of_the_functions():
    """config.py repeats them, because importing the functions would make --help wait for torch."""
    assert list(config.SCHEDULES) == list(schedules.SCHEDULES)
    assert list(config.SAMPLERS) == list(samplers.SAMPLERS)
    assert set(config.SPACINGS) == {"auto", *spacing.SPACINGS}


def test_an_installed_package_brings_the_bundled_sets_and_models(tmp_path):
    """Builds the wheel that `pip install git+...` would, and reads them out of it."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    names = {path.name for path in (tmp_path / "installed").iterdir()}
    assert names == {"diffusion_lib", f"simple_diffusion-{PROJECT['version']}.dist-info"}
    program = (
        "import diffusion_lib as d; print(d.__file__);"
        "names = ('faces', 'digits', 'brains');"
        "print([tuple(d.load_images(name, 16).shape) for name in names]);"
        "print([tuple(d.GaussianDiffusion.load(name).image_shape) for name in names])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "installed"), "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    where, shapes, image_shapes = result.stdout.splitlines()
    assert where.startswith(str(tmp_path / "installed"))
    assert shapes == "[(4000, 3, 16, 16), (5000, 1, 16, 16), (1000, 1, 16, 16)]"
    assert image_shapes == "[(3, 16, 16), (1, 28, 28), (1, 64, 64)]"


def test_jupyterlab_has_widgets_and_paired_notebooks():
    """What `make lab` opens has the extensions of ipywidgets and jupytext, switched on."""
    result = subprocess.run(
        [sys.executable, "-m", "jupyter", "labextension", "list"], capture_output=True, text=True
    )
    listed = re.sub("\x1b[^m]*m", "", result.stdout + result.stderr)
    for extension in ("@jupyter-widgets/jupyterlab-manager", "jupyterlab-jupytext"):
        assert re.search(rf"{extension} v\S+ enabled OK", listed), listed


def test_ruff_finds_nothing():
    for command in (["check"], ["format", "--check"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout
