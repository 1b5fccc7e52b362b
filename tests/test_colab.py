"""The way of a page on Colab, rehearsed: a fresh Python that has torch and the like but not this
package, the ipywidgets 7.7.1 that Colab has, a `google.colab` that is already imported, and nothing
of the repository but its address.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
PAGE = "notebooks/01_forward_process.ipynb"


def git(*arguments: object) -> str:
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


WIDGETS = """
import io
import ipywidgets, torch
from PIL import Image
from diffusion_lib import GaussianDiffusion, ddim, environment, load_images, widgets
assert ipywidgets.__version__ == "7.7.1"
print(environment.problems())
box = widgets.schedule_explorer({"face": load_images("faces", 16)[0]})
controls, figure, words = box.children
before, jpeg = figure.value, io.BytesIO()
Image.new("RGB", (90, 60), "green").save(jpeg, "jpeg")
names, upload = controls.children[2].children
upload.metadata, upload.data, upload._counter = [{"name": "mine.jpg"}], [jpeg.getvalue()], 1
print(names.value, figure.value != before)
noise = torch.randn(1, 3, 16, 16)
steps = list(ddim(GaussianDiffusion.load("faces"), noise, 2))
print(widgets.denoising_scrubber(noise, steps).children[0].children[1].max)
"""


@pytest.fixture
def bare_clone(tmp_path) -> Path:
    """What the repository's address will lead to: the last commit."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    git("clone", "--quiet", "--bare", ROOT, tmp_path / "bare.git")
    return tmp_path / "bare.git"


@pytest.fixture
def colab(tmp_path) -> Path:
    """The Python of a fresh environment, which sees all packages of this one but ours."""
    venv.create(tmp_path / "colab", with_pip=True)
    python = tmp_path / "colab" / "bin" / "python"
    (packages,) = (tmp_path / "colab" / "lib").glob("python*/site-packages")
    shared = tmp_path / "shared"
    shared.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.search(r"diffusion_lib|simple_diffusion|^pip\b", path.name):
            (shared / path.name).symlink_to(path)
    stand_in = packages / "google" / "colab"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    old = ["--no-deps", "ipywidgets==7.7.1", "ipython-genutils"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *old], check=True)
    (packages / "colab.pth").write_text(f"{shared}\nimport google.colab\n")
    program = "import torch, diffusion_lib"
    missing = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True)
    assert b"No module named 'diffusion_lib'" in missing.stderr
    return python


@pytest.mark.slow
def test_a_page_sets_itself_up_and_runs(bare_clone, colab, tmp_path, monkeypatch):
    notebook = nbformat.reads(git("--git-dir", bare_clone, "show", f"HEAD:{PAGE}"), as_version=4)
    address = re.search(r'"git\+(\S+)"', notebook.cells[1].source)[1]
    # git goes to the clone when it is asked for the address: the cell itself stays as it is.
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{bare_clone}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", address)
    kernel = tmp_path / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [str(colab), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "Colab",
                "language": "python",
            }
        )
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    content = tmp_path / "content"  # where Colab starts: an empty folder
    content.mkdir()
    for added in (WIDGETS, "import diffusion_lib; print(diffusion_lib.__file__)"):
        notebook.cells.append(nbformat.v4.new_code_cell(added))
    NotebookClient(
        notebook, kernel_name="colab", timeout=600, resources={"metadata": {"path": content}}
    ).execute()
    widgets, where = (
        "".join(output.text for output in cell.outputs) for cell in notebook.cells[-2:]
    )
    assert widgets.splitlines() == ["[]", "mine.jpg True", "2"]
    assert where.startswith(os.fspath(tmp_path / "colab")), where
    assert sys.prefix not in where
