"""Makes the notebooks from their scripts: python notebooks/build.py run|address|map|copy [NN ...]  (NN: 00, 02b, ...)

The scripts in `notebooks/scripts/` are the source of every input; `notebooks/*.ipynb` hold the same
inputs with their outputs. `run` makes the notebooks again, executed, with nothing in them that
differs from one run to the next, and prints the time and the peak of memory of each. `address`
stamps the repository's address, which pyproject.toml knows, and the tag of the version, which
diffusion_lib/__init__.py knows, into the badge and the set-up cell of every script and notebook, and
into the README and CITATION.cff. `map` writes the table of the pages, which diffusion_lib/course.py
has, into page 00 (to be run then) and the README, and the memory of each page into its script and its
notebook. `copy` puts copies of the pages into `my_pages/`, which git ignores: there learners change and
save what they like.
"""

import hashlib
import json
import re
import sys
import time
from pathlib import Path
from threading import Event, Thread

import jupytext
import nbformat
import psutil
from nbclient import NotebookClient
from nbformat import NotebookNode

from diffusion_lib import __version__
from diffusion_lib.course import PAGES, Page

NOTEBOOKS = Path(__file__).parent
SCRIPTS = NOTEBOOKS / "scripts"
TAG = f"v{__version__}"  # what Colab opens and installs: a page, and the package of the same day
COPIES = NOTEBOOKS.parent / "my_pages"
# Where the table of the pages stands: a file, the folder of the pages seen from there, and what
# comes before each line.
MAPS = (
    (NOTEBOOKS.parent / "README.md", "notebooks/", ""),
    (SCRIPTS / "00_start_here.py", "", "# "),
)
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
        if "outputs" in cell:
            cell.outputs = joined(cell.outputs)
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):  # it is nothing without its kernel
                output.data = {"text/plain": "(A widget: run this cell, and it appears.)"}
    return notebook


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Text that a cell printed, in one piece: a slow machine delivers it in several."""
    whole: list[NotebookNode] = []
    for output in outputs:
        if whole and output.get("name") and output.get("name") == whole[-1].get("name"):
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def copy(target: Path = COPIES) -> list[str]:
    """Copy all pages, but leave those that a learner has changed.

    Returns:
        The names of these, where the page has become newer too.
    """
    target.mkdir(exist_ok=True)
    record, behind = target / ".originals.json", []
    copied = json.loads(record.read_text()) if record.exists() else {}
    for source in (*sorted(NOTEBOOKS.glob("*.ipynb")), NOTEBOOKS / "glossary.md"):
        text, mine = source.read_text(), target / source.name
        if source.suffix == ".ipynb":  # without its script, which would be saved with it
            notebook = nbformat.reads(text, as_version=4)
            notebook.metadata.pop("jupytext")
            text = nbformat.writes(notebook)
        if not mine.exists() or digest(mine.read_text()) == copied.get(source.name):
            mine.write_text(text)
            copied[source.name] = digest(text)
        elif copied.get(source.name) != digest(text):
            behind.append(source.name)
    record.write_text(json.dumps(copied))
    return behind


def contents(folder: str = "") -> str:
    """The table of all pages, with links into a folder; those of the main road are bold."""
    lines = ["| page | you will | runs in | memory |", "|---|---|---|---|"]
    for page in PAGES:
        link = f"[{page.number} {page.title}]({folder}{page.file}.ipynb)"
        link = link if page.is_side_page else f"**{link}**"
        lines.append(f"| {link} | {page.you_will} | {page.runs_in} | {page.memory} |")
    return "\n".join(lines) + "\n"


def with_contents(text: str, folder: str = "", comment: str = "") -> str:
    """A text with the table of all pages, as it is now, in place of an earlier one.

    comment: what stands before each line.
    """
    table = "".join(f"{comment}{line}\n" for line in contents(folder).splitlines())
    first, mark = table.splitlines()[0], re.escape(comment)
    return re.sub(
        rf"^{re.escape(first)}\n({mark}\|.*\n)+", lambda _: table, text, flags=re.MULTILINE
    )


def with_memory(text: str, page: Page) -> str:
    """The text of a page, or of its script, with the memory that it takes beside its time."""
    time = r"(\| It runs in \| [^|;]* on two CPU cores)(, in [\d.]+ GB of memory)?"
    return re.sub(time, rf"\g<1>, in {page.memory} of memory", text)


class PeakMemory:
    """The most memory that the programs which this one has started have at one time.

    gigabytes: their resident memory together, looked at ten times a second (what they share counts
        for each); at least the highest that any of them ever had, where the system (Linux) tells.
    """

    def __init__(self):
        self.gigabytes, self.ended = 0.0, Event()
        self.thread = Thread(target=self.watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        first_seen = {}
        while not self.ended.wait(0.1):
            now = highest = 0
            for process in psutil.Process().children(recursive=True):
                if time.monotonic() - first_seen.setdefault(process, time.monotonic()) < 0.5:
                    continue  # until it begins its own program, it has the memory of its parent
                try:
                    now += process.memory_info().rss
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    highest = max(highest, 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1]))
                except (OSError, TypeError, psutil.Error):  # it has ended, or this is no Linux
                    continue
            self.gigabytes = max(self.gigabytes, now / 1e9, highest / 1e9)


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def address() -> str:
    """The repository's address, from pyproject.toml."""
    project = (NOTEBOOKS.parent / "pyproject.toml").read_text()
    return re.search(r'^Repository = "(.*?)/?"$', project, re.MULTILINE)[1]


def stamp(text: str, address: str, tag: str = TAG) -> str:
    """A text with this address in its Colab badge, its set-up cell, its `git clone` and so on, and
    with this tag where a version is meant.
    """
    owner_and_name = address.removeprefix("https://github.com/")
    text = re.sub(
        r"(colab\.research\.google\.com/github/)[^/\s]+/[^/\s]+/blob/[^/\s]+/",
        rf"\g<1>{owner_and_name}/blob/{tag}/",
        text,
    )
    end = r"https?://[^\s\"'\\]+"
    text = re.sub(rf"git\+{end}", f"git+{address}@{tag}", text)
    text = re.sub(r"^version: .*$", f"version: {tag.removeprefix('v')}", text, flags=re.MULTILINE)
    return re.sub(rf"(git clone |repository-code: ){end}", rf"\g<1>{address}", text)


def main() -> None:
    task, *numbers = sys.argv[1:] or ["help"]
    scripts = [
        s for s in sorted(SCRIPTS.glob("*.py")) if not numbers or s.name.split("_")[0] in numbers
    ]
    if task == "run":
        for script in scripts:
            started = time.monotonic()
            with PeakMemory() as peak:
                nbformat.write(run(script), NOTEBOOKS / f"{script.stem}.ipynb")
            seconds = time.monotonic() - started
            print(f"{script.stem}: {seconds:.0f} s, {peak.gigabytes:.2f} GB", flush=True)
    elif task == "map":
        for file, folder, comment in MAPS:
            file.write_text(with_contents(file.read_text(), folder, comment))
        for page in PAGES:
            for file in (SCRIPTS / f"{page.file}.py", NOTEBOOKS / f"{page.file}.ipynb"):
                file.write_text(with_memory(file.read_text(), page))
    elif task == "copy":
        if behind := copy():
            print(
                f"kept in {COPIES.name}/ as you have changed it: {', '.join(behind)}; the course "
                "has a newer one, which you get by renaming yours"
            )
    elif task == "address":
        others = [NOTEBOOKS.parent / name for name in ("README.md", "CITATION.cff")]
        for file in (*scripts, *NOTEBOOKS.glob("*.ipynb"), *others):
            file.write_text(stamp(file.read_text(), address()))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
