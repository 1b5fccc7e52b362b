"""The project's own promises: what it installs, what its README says, what it carries."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import diffusion_lib
from diffusion_lib import config, features, sampling, schedules, spacing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "diffusion_lib"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# The modules of the package, by the layer in which they stand: each imports only from layers above
# it in this list. A folder of WHOLE counts as one module.
WHOLE = ("exercises", "benchmark")
LAYERS = [
    [
        "course",
        "errors",
        "locks",
        "distributed",
        "images",
        "images.pixels",
        "networks.layers",
        "reports",
    ],
    ["options", "schedules", "networks.unet", "networks.original", "clock"],
    ["config"],
    ["networks.dit", "recipe"],
    ["files", "cli", "spacing", "networks", "networks.classifier", "batches", "neighbors", "views"],
    ["images.account", "images.formats", "images.values"],
    ["images.dicom", "images.volumes", "images.tiffs"],
    ["images.files", "images.medical"],
    ["images.decode", "images.folders"],
    ["images.series"],
    ["images.store", "images.labels"],
    ["hub", "devices", "compiling", "features", "toys", "exercises", "images.cache", "labels"],
    ["diffusion", "graphs"],
    ["samplers", "wrapper", "metrics", "advice", "optimizers"],
    ["guidance", "resuming"],
    ["solvers", "training", "environment", "paths", "likelihood", "editing"],
    ["sampling", "stopping", "estimate", "plots"],
    ["explorer", "charts", "drawings", "copying"],
    ["recording", "widgets", "benchmark"],
    ["train", "predict", "evaluate", "__main__"],
]


def name_of(path: Path) -> str:
    """The module of a file: "training", "networks.unet", "networks"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if parts[0] in WHOLE else ".".join(p for p in parts if p != "__init__")


MODULES = {name_of(path) for path in PACKAGE.rglob("*.py")} - {""}


def imports_of(source: str) -> set[str]:
    """The modules of the package that a source imports, in whatever form, also for types only."""

    def module(dotted: str) -> str:
        """The longest beginning of a dotted name that is a module."""
        dotted = diffusion_lib._MODULES.get(dotted, dotted)
        while dotted and dotted not in MODULES:
            dotted = dotted.rpartition(".")[0]
        return dotted

    tree = ast.parse(source)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    own = [
        name.removeprefix("diffusion_lib.") for name in found if name.startswith("diffusion_lib.")
    ]
    return {module(name) for name in own} - {""}


IMPORTS: dict[str, set[str]] = {name: set() for name in MODULES}
for path in PACKAGE.rglob("*.py"):
    if name_of(path):
        IMPORTS[name_of(path)] |= imports_of(path.read_text()) - {name_of(path)}


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


def test_the_locked_versions_are_of_all_that_is_needed_but_pytorch():
    """`make lock` writes them. PyTorch, whose builds are each for one kind of GPU, is free."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = dict(line.split("==") for line in lines)
    assert [name for name in locked if re.match("torch|triton|nvidia|cuda", name)] == []
    locked = {canonicalize_name(name): version for name, version in locked.items()}
    needed = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, needed):
        if requirement.name.startswith("torch") or "python_version" in str(requirement.marker):
            continue
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_readme_names_only_targets_flags_and_files_that_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)", readme))
    assert {"lab", "test", "demo"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    for link in re.findall(r"\]\((?!http|\.\./\.\./actions/)([^)#]+)\)", readme):
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
    visible = {name for name in folders if not name.startswith(".")}
    assert visible == {"notebooks", "diffusion_lib", "data", "tests"}
    assert folders - visible <= {".ci", ".github"}


def test_a_module_imports_only_from_layers_below():
    assert sorted(name for layer in LAYERS for name in layer) == sorted(IMPORTS)
    height = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    for name, imported in IMPORTS.items():
        upward = {other for other in imported if height[other] >= height[name]}
        assert not upward, f"{name} imports {upward}"


def test_the_map_in_the_readme_has_every_module_below_those_that_it_imports():
    table = (ROOT / "README.md").read_text().split("## The package")[1]
    rows = [
        re.findall(r"`([\w/]+)(?:\.py)?`", row.split("|")[1])
        for row in table.splitlines()
        if row.startswith("| `")
    ]
    place = {name.strip("/"): i for i, row in enumerate(rows) for name in row}

    def row_of(module: str) -> int:
        return place[module if module in place else module.split(".")[0]]

    for name, imported in IMPORTS.items():
        above = {other for other in imported if row_of(other) > row_of(name)}
        assert not above, f"{name} stands above {above}"


@pytest.mark.parametrize(
    "source, imported",
    [
        ("from diffusion_lib.training import Trainer", {"training"}),
        ("from diffusion_lib import training", {"training"}),
        ("from diffusion_lib import Trainer", {"training"}),
        ("import diffusion_lib.networks.unet as u", {"networks.unet"}),
        ("def f():\n    from diffusion_lib.networks import layers, build_network",
         {"networks", "networks.layers"}),
        ("if TYPE_CHECKING:\n    from diffusion_lib.training import Report", {"training"}),
    ],
)  # fmt: skip
def test_imports_are_found_in_every_form(source, imported):
    assert imports_of(source) == imported


def test_no_file_of_the_library_is_longer_than_300_lines():
    """Those of the exercises may be: they are lists of questions and mistakes."""
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
        if "exercises" not in path.parts
    }
    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_editors_see_the_names_that_can_be_imported():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    shown = {
        alias.name: line.module.removeprefix("diffusion_lib.")
        for line in block.body
        for alias in line.names
    }
    assert shown == diffusion_lib._MODULES
    assert all(getattr(diffusion_lib, name) for name in dir(diffusion_lib))


@pytest.mark.parametrize("command", ["__main__", "train", "predict", "evaluate", "benchmark"])
def test_help_does_not_wait_for_torch(command):
    program = (
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        f"try: runpy.run_module('diffusion_lib.{command}', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'PIL'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "[]", result


def test_models_and_the_trainer_do_not_wait_for_pictures():
    """matplotlib and tensorboard take longer to import than all of the rest but torch."""
    program = (
        "import sys; from diffusion_lib import GaussianDiffusion, NoiseSchedule, Trainer, sample\n"
        "print(sorted({'torchvision', 'matplotlib', 'tensorboard'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == "[]\n", result


def test_the_names_on_the_command_line_are_those_of_the_functions():
    """config.py repeats them, because importing the functions would make --help wait for torch."""
    assert list(config.SCHEDULES) == list(schedules.SCHEDULES)
    assert list(config.SAMPLERS) == list(sampling.SAMPLERS)
    assert set(config.SPACINGS) == {"auto", *spacing.SPACINGS}
    assert list(config.FEATURES) == list(features.FEATURES)


@pytest.mark.slow
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
    assert names == {"diffusion_lib", f"simple_diffusion-{diffusion_lib.__version__}.dist-info"}
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


@pytest.mark.slow
def test_jupyterlab_has_widgets_and_paired_notebooks():
    """What `make lab` opens has the extensions of ipywidgets and jupytext, switched on."""
    result = subprocess.run(
        [sys.executable, "-m", "jupyter", "labextension", "list"], capture_output=True, text=True
    )
    listed = re.sub("\x1b[^m]*m", "", result.stdout + result.stderr)
    for extension in ("@jupyter-widgets/jupyterlab-manager", "jupyterlab-jupytext"):
        assert re.search(rf"{extension} v\S+ enabled OK", listed), listed
