"""What the README tells a reader to type works: its Python is run, its commands are understood."""

import ast
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README, RECIPES, MEASURED = (
    (ROOT / name).read_text() for name in ("README.md", "RECIPES.md", "MEASURED.md")
)
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SHELL = "".join(
    re.findall(r"^```sh\n(.*?)^```", README + RECIPES + MEASURED, re.MULTILINE | re.DOTALL)
)
MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = [
    line
    for line in (SHELL + MAKEFILE).replace("\\\n", " ").splitlines()
    if re.search(r"diffusion_lib\.(train|predict|evaluate)\b", line)
]


@pytest.mark.slow
@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_the_python_of_the_readme_runs(code, tmp_path):
    if "pretrained" in code:
        pytest.importorskip("safetensors")
    code = re.sub(r"epochs=\d+", "epochs=1", code).replace("path/to/images", "faces")
    code = code.replace("image_size=32, minutes=9", "image_size=16, minutes=0.02")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_a_model_is_used_in_five_lines_and_trained_in_five_after_the_imports():
    use, train = ([line for line in code.splitlines() if line] for code in PYTHON[:2])
    assert len(use) <= 5
    assert len([line for line in train if not line.startswith("from ")]) <= 5
    assert README.index(PYTHON[1]) < README.index("## ")


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_readme_are_understood(line):
    module, arguments = re.search(r"-m (diffusion_lib\.\w+) (.*)", line).groups()
    parser = import_module(module).build_parser()
    parser.parse_args(shlex.split(arguments, comments=True))


def test_the_demo_ends_with_a_picture_to_open_and_a_next_step():
    demo = re.search(r"^demo:.*?\n\n", MAKEFILE, re.MULTILINE | re.DOTALL)[0]
    assert "--output out/demo --name demo" in demo and "--only_grid" in demo and "--gif" in demo
    said = re.findall(r'@echo "(.*)"', demo)
    assert "out/demo/demo_grid.png" in said[0] and "out/demo/demo.gif" in said[0]
    own = re.search(r"simple-diffusion train (.*)", said[-1])[1]
    import_module("diffusion_lib.train").build_parser().parse_args(shlex.split(own))


def test_the_first_run_on_ones_own_images_ends_in_ten_minutes():
    first = next(line for line in COMMANDS if "diffusion_lib.train" in line)
    assert float(re.search(r"--minutes (\S+)", first)[1]) < 10


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", RECIPES, re.M | re.S))
def test_recipes_use_what_exists(code):
    """They need packages that the course does not, so they are read, and what they import of ours
    is imported.
    """
    own = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("diffusion_lib")
    ]
    for node in own:
        module = import_module(node.module)
        assert all(hasattr(module, alias.name) for alias in node.names)
