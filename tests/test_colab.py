"""The way of a page on Colab, rehearsed: a fresh Python that has, of the packages that the course
needs, those that Colab has; its ipywidgets 7.7.1; a `google.colab` that is already imported; and
nothing of the repository but its address.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import diffusion_lib
from diffusion_lib import environment

ROOT = Path(__file__).parent.parent
PAGE = "notebooks/00_start_here.ipynb"
# What the course needs and Colab has: pip-freeze.txt in github.com/googlecolab/backend-info.
COLAB = {
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "matplotlib",
    "ipywidgets",
    "tensorboard",
    "tqdm",
}


def git(*arguments: object) -> str:
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


WIDGETS = """
import io
import ipywidgets, torch
from PIL import Image
from diffusion_lib import GaussianDiffusion, ddim, environment, features, load_images, widgets
assert ipywidgets.__version__ == "7.7.1"
print(environment.problems())
print(len(features.efficientnet_features("cpu")(torch.zeros(2, 3, 16, 16))))
box = widgets.schedule_explorer({"face": load_images("faces", 16)[0]})
*rows, figure, words = box.children
before, jpeg = figure.value, io.BytesIO()
Image.new("RGB", (90, 60), "green").save(jpeg, "jpeg")
names, upload = rows[1].children[2].children
upload.metadata, upload.data, upload._counter = [{"name": "mine.jpg"}], [jpeg.getvalue()], 1
print(names.value, figure.value != before)
noise = torch.randn(1, 3, 16, 16)
steps = list(ddim(GaussianDiffusion.load("faces"), noise, 2))
print(widgets.denoising_scrubber(noise, steps).children[0].children[1].max)
"""


def installed(names: Iterable[str]) -> set[str]:
    """What these packages, and all that they need, have put into the folder of packages."""
    found: dict[str, set[str]] = {}
    names = list(names)
    while names:
        name = canonicalize_name(names.pop())
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # one for another system
            continue
        found[name] = {path.parts[0] for path in package.files}
        needed = map(Requirement, package.requires or [])
        names += [n.name for n in needed if not n.marker or n.marker.evaluate({"extra": ""})]
    return set().union(*found.values()) - {"..", "__pycache__"}


def test_the_set_up_cell_brings_what_colab_has_not():
    notebook = nbformat.read(ROOT / PAGE, as_version=4)
    (brought,) = re.findall(r"^    more = \[(.*)\]", notebook.cells[1].source, re.MULTILINE)
    assert set(re.findall(r'"(.*?)"', brought)) == environment.PACKAGES.keys() - COLAB


@pytest.fixture
def bare_clone(tmp_path) -> Path:
    """What the repository's address will lead to: the last commit, tagged with its version."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    git("clone", "--quiet", "--bare", ROOT, tmp_path / "bare.git")
    tag = f"v{diffusion_lib.__version__}"
    git("--git-dir", tmp_path / "bare.git", "tag", "--force", tag, "HEAD")
    return tmp_path / "bare.git"


@pytest.fixture
def colab(tmp_path, monkeypatch) -> Path:
    """The Python of a fresh environment, which sees those packages of this one that Colab has."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    venv.create(tmp_path / "colab", with_pip=True)
    python = tmp_path / "colab" / "bin" / "python"
    (packages,) = (tmp_path / "colab" / "lib").glob("python*/site-packages")
    shared = tmp_path / "shared"
    shared.mkdir()
    for name in installed([*COLAB, "ipykernel"]):
        (shared / name).symlink_to(Path(sysconfig.get_path("purelib"), name))
    stand_in = packages / "google" / "colab"
    stand_in.mkdir(parents=True)
    (stand_in / "__init__.py").touch()
    old = ["--no-deps", "ipywidgets==7.7.1", "ipython-genutils"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *old], check=True)
    (packages / "colab.pth").write_text(f"{shared}\nimport google.colab\n")
    for name in ("diffusion_lib", "efficientnet_lite_pytorch"):
        program = f"import torch, {name}"
        missing = subprocess.run([python, "-c", program], cwd=tmp_path, capture_output=True)
        assert f"No module named '{name}'".encode() in missing.stderr
    return python


@pytest.mark.slow
def test_a_page_sets_itself_up_and_runs(bare_clone, colab, tmp_path, monkeypatch):
    notebook = nbformat.reads(git("--git-dir", bare_clone, "show", f"HEAD:{PAGE}"), as_version=4)
    address = re.search(r'"git\+(\S+)@v\S+"', notebook.cells[1].source)[1]
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
    assert widgets.splitlines() == ["[]", "2", "mine.jpg True", "2"]
    assert where.startswith(os.fspath(tmp_path / "colab")), where
    assert sys.prefix not in where
