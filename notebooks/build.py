"""Makes the notebooks from their scripts: python notebooks/build.py run|address [NN ...]  (NN: 00, 02b, ...)

The scripts in `notebooks/scripts/` are the source of every input; `notebooks/*.ipynb` hold the same
inputs with their outputs. `run` makes the notebooks again, executed, with nothing in them that
differs from one run to the next. `address` stamps the repository's address, which pyproject.toml
knows, into the badge and the set-up cell of every script and notebook, and into the README and
CITATION.cff.
"""

import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parent
SCRIPTS = NOTEBOOKS / "scripts"
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "jupytext": {"formats": "ipynb,scripts//py:percent"},
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def inputs(script: Path) -> NotebookNode:
    """The notebook that a script describes, without outputs."""
    notebook = jupytext.read(script)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
    return notebook


def run(script: Path) -> NotebookNode:
    """The same with its outputs. Raises nbclient's CellExecutionError where a cell fails."""
    notebook = inputs(script)
    NotebookClient(
        notebook,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": NOTEBOOKS}},
    ).execute()
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel adds its version
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):  # it is nothing without its kernel
                output.data = {"text/plain": "(A widget: run this cell, and it appears.)"}
    return notebook


def address() -> str:
    """The repository's address, from pyproject.toml."""
    project = (NOTEBOOKS.parent / "pyproject.toml").read_text()
    return re.search(r'^Repository = "(.*?)/?"$', project, re.MULTILINE)[1]


def stamp(text: str, address: str) -> str:
    """A text with this address in its Colab badge, its set-up cell, its `git clone` and so on."""
    owner_and_name = address.removeprefix("https://github.com/")
    text = re.sub(
        r"(colab\.research\.google\.com/github/)[^/\s]+/[^/\s]+(/blob/main/)",
        rf"\g<1>{owner_and_name}\g<2>",
        text,
    )
    places = r"(git\+|git clone |repository-code: )"
    return re.sub(rf"{places}https?://[^\s\"'\\]+", rf"\g<1>{address}", text)


def main() -> None:
    task, *numbers = sys.argv[1:] or ["help"]
    scripts = [
        s for s in sorted(SCRIPTS.glob("*.py")) if not numbers or s.name.split("_")[0] in numbers
    ]
    if task == "run":
        for script in scripts:
            started = time.monotonic()
            nbformat.write(run(script), NOTEBOOKS / f"{script.stem}.ipynb")
            print(f"{script.stem}: {time.monotonic() - started:.0f} s", flush=True)
    elif task == "address":
        others = [NOTEBOOKS.parent / name for name in ("README.md", "CITATION.cff")]
        for file in (*scripts, *NOTEBOOKS.glob("*.ipynb"), *others):
            file.write_text(stamp(file.read_text(), address()))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
