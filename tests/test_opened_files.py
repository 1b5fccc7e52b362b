"""A file that a page opens holds what the page has built.

Whatever else is in it stands at its end, under a banner, "# Also here: ...": at the end of a class,
or at the end of the file. The page names both in tables: what was built and where it is in the
file, and what is also there and why.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNER = "# Also here: "
OPENED = [
    ("01_forward_process", "schedules.py"),
    ("03_unet", "networks/layers.py"),
    ("03_unet", "networks/unet.py"),
    ("04_training", "training.py"),
    ("05_sampling", "samplers.py"),
    ("05b_editing_images", "editing.py"),
    ("06_is_it_any_good", "metrics.py"),
    ("07_labels_and_guidance", "guidance.py"),
]


def public_names(source: str) -> tuple[set[str], set[str]]:
    """The public names above the banners of a file, and those under one.

    Functions, classes and constants of the module, and the methods of its public classes; those of
    a class under a banner go with the class.
    """
    banners = [
        (number, len(line) - len(line.lstrip()))
        for number, line in enumerate(source.splitlines(), start=1)
        if line.lstrip().startswith(BANNER)
    ]
    built, also = set(), set()

    def add(name: str, node: ast.stmt, end: int) -> None:
        """Sort one name in; a banner at its indentation covers what follows up to `end`."""
        covered = any(
            number < node.lineno and (indent == 0 or (indent == node.col_offset and number > end))
            for number, indent in banners
        )
        (also if covered else built).add(name)

    for node in ast.parse(source).body:
        for name in defined(node):
            add(name, node, 0)
        if isinstance(node, ast.ClassDef) and node.name in built:
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    add(f"{node.name}.{inner.name}", inner, node.lineno)
    return built, also


def defined(node: ast.stmt) -> list[str]:
    """The public names that a statement of a module defines; names of types are not counted."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        names = [node.name]
    elif isinstance(node, ast.Assign) and "TypeVar" not in ast.unparse(node.value):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
    else:
        names = []
    return [name for name in names if not name.startswith("_")]


def tables(page: str, file: str) -> tuple[set[str], set[str]]:
    """The names of a file that a page says it has built, and those that it says are also there."""
    built, also, current = set(), set(), None
    for line in page.splitlines():
        line = line.removeprefix("# ")
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) < 2:
            current = None if not line.startswith("|") else current
        elif cells[0] == "You built":
            opened = re.fullmatch(r"In `diffusion_lib/(.+)`", cells[1])[1]
            current = (opened, built, 1)
        elif cells[0] == "Also there":
            current = (opened, also, 0)
        elif current and current[0] == file and not set(cells[0]) <= set("-: "):
            current[1].update(re.findall(r"`([\w.]+)`", cells[current[2]]))
    return built, also


@pytest.mark.parametrize("page, file", OPENED)
def test_a_page_has_built_what_the_file_holds_that_it_opens(page, file):
    source = (ROOT / "diffusion_lib" / file).read_text()
    in_file = public_names(source)
    on_page = tables((ROOT / "notebooks" / "scripts" / f"{page}.py").read_text(), file)
    assert in_file[0] == on_page[0], "above the banners, and the page's table of what was built"
    assert in_file[1] == on_page[1], "under a banner, and the page's table of what is also there"


def test_names_above_and_under_banners_are_told_apart():
    source = """
X = 1
class A:
    def first(self): ...
    # Also here: a method
    def second(self): ...
    def _hidden(self): ...
class B:
    def third(self): ...
def f(): ...
# Also here: a function
def g(): ...
class C:
    def fourth(self): ...
"""
    assert public_names(source) == ({"X", "A", "A.first", "B", "B.third", "f"},
                                    {"A.second", "g", "C"})  # fmt: skip


def test_tables_of_several_files_on_a_page_are_told_apart():
    page = """
# | You built | In `diffusion_lib/a.py` | What differs |
# |---|---|---|
# | `mine` | `theirs`, `A.method` | not `this` |
#
# | Also there | Why |
# |---|---|
# | `more` | `because` |
#
# Some text.
#
# | You built | In `diffusion_lib/b.py` |
# |---|---|
# | `mine` | `other` |
"""
    assert tables(page, "a.py") == ({"theirs", "A.method"}, {"more"})
    assert tables(page, "b.py") == ({"other"}, set())
