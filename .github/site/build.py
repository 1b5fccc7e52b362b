"""Builds the site in build/site/html: python .github/site/build.py

Its pages are the notebooks with their outputs, the glossary, and the README in parts. They are
copied to build/site/source as they are, but for what makes no sense there: links to files that the
site has not, the cell that sets up Colab, and widgets, which need a kernel. The reference comes
from the docstrings.
"""

import base64
import re
import shutil
import sys
from pathlib import Path, PurePosixPath

import nbformat
from sphinx.cmd.build import main as sphinx

SITE = Path(__file__).parent
ROOT = SITE.parent.parent
SOURCE, HTML = ROOT / "build/site/source", ROOT / "build/site/html"
ADDRESS = re.search(r'^Repository = "(.*?)/?"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
PARTS = {  # a heading of the README -> the page that begins there
    "The course": "index",
    "Your own images": "own_images",
    "The package": "package",
}
INTERNAL = ("benchmark", "exercises", "__main__")  # modules that the reference leaves out
COLAB = re.compile(r"\[!\[Open in Colab\]\(\S+\)\]\((\S+)\)")
TOCTREE = "```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n"


def readme_parts() -> dict[str, str]:
    """The README, cut where PARTS says; the first part has what stands before its heading."""
    text = (ROOT / "README.md").read_text()
    text = re.sub(r"^\[!\[.*\n", "", text, flags=re.M)  # badges
    headings = "|".join(list(PARTS)[1:])
    first, *rest = re.split(rf"^## (?={headings}\n)", text, flags=re.M)
    return {"index": first} | {PARTS[part.split("\n")[0]]: f"# {part}" for part in rest}


def linked(text: str, page: str) -> str:
    """A page in Markdown whose links to files that the site has not lead to the repository."""

    def link(match: re.Match) -> str:
        target = PurePosixPath(page).parent / match[1]
        parts: list[str] = []
        for part in target.parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        path = "/".join(parts)
        if (SOURCE / path).is_file() or not (ROOT / path).exists():
            return match[0]
        return f"]({ADDRESS}/blob/main/{path})"

    text = re.sub(r"\]\(#\S+\)", lambda match: match[0].lower(), text)  # headings of the page
    text = text.replace("](../../issues/", f"]({ADDRESS}/issues/")
    return re.sub(r"\]\((?!\w+:|#|<)([^)\s#]+)\)", link, text)


def page(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook for the web."""
    notebook.cells = [c for c in notebook.cells if '"google.colab" in sys.modules' not in c.source]
    for cell in notebook.cells:
        cell.source = COLAB.sub(r'<a class="colab" href="\1">Open in Colab</a>', cell.source)
        if cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata.setdefault("tags", []).append("hide-input")
        for output in cell.get("outputs", []):
            if "(A widget:" in output.get("data", {}).get("text/plain", ""):
                output.data = widget(cell.source)
    return notebook


def widget(source: str) -> dict:
    """What the site shows in place of a widget."""
    if "schedule_explorer" in source:
        picture = (ROOT / "data/pictures/explorer.png").read_bytes()
        return {"image/png": base64.b64encode(picture).decode()}
    return {"text/markdown": "*Here is a widget when you run the page, on Colab or at home.*"}


def modules() -> list[str]:
    """The modules of the library: "batches", ..., "networks.unet"."""
    package = ROOT / "diffusion_lib"
    paths = [p.relative_to(package).with_suffix("") for p in sorted(package.rglob("*.py"))]
    names = [".".join(p for p in path.parts if p != "__init__") for path in paths]
    return [name for name in names if name and name.split(".")[0] not in INTERNAL]


def reference(module: str) -> str:
    directive = f".. automodule:: diffusion_lib.{module}\n   :members:\n"
    return f"# {module}\n\n```{{eval-rst}}\n{directive}```\n"


def write_source() -> None:
    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE / "reference").mkdir(parents=True)
    shutil.copytree(ROOT / "data/pictures", SOURCE / "data/pictures")
    texts = readme_parts()
    others = ("notebooks/glossary.md", "data/README.md")
    for name in (*others, "RECIPES.md", "MEASURED.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        texts[name.removesuffix(".md")] = (ROOT / name).read_text()
    texts |= {f"reference/{module}": reference(module) for module in modules()}
    notebooks = {f"notebooks/{path.stem}": path for path in (ROOT / "notebooks").glob("*.ipynb")}
    tree = {
        "The course": [*sorted(notebooks), "notebooks/glossary"],
        "Use it": ["own_images", "data/README", "RECIPES", "MEASURED"],
        "The package": ["package"],
        "The project": ["CONTRIBUTING", "CHANGELOG"],
    }
    tables = {caption: TOCTREE.format(caption, "\n".join(names)) for caption, names in tree.items()}
    texts["index"] += "\n" + "\n".join(tables.values())
    pages = [f"reference/{module}" for module in modules()]
    texts["package"] += "\n" + TOCTREE.format("Reference", "\n".join(pages))
    for name in (*texts, *notebooks):  # first all that can be linked to
        (SOURCE / name).parent.mkdir(exist_ok=True)
        (SOURCE / f"{name}{'.ipynb' if name in notebooks else '.md'}").touch()
    for name, text in texts.items():
        (SOURCE / f"{name}.md").write_text(linked(text, name))
    for name, path in notebooks.items():
        notebook = page(nbformat.read(path, as_version=4))
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = linked(cell.source, name)
        nbformat.write(notebook, SOURCE / f"{name}.ipynb")


if __name__ == "__main__":
    write_source()
    sys.exit(sphinx(["-q", "-W", "--keep-going", "-c", str(SITE), str(SOURCE), str(HTML)]))
