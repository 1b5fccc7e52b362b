"""The glossary: its names exist in diffusion_lib, and its pages explain its terms."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import diffusion_lib

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
TEXT = (NOTEBOOKS / "glossary.md").read_text()
ROWS = [
    [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith("| term")
]
TERMS = [row[0] for row in ROWS]


@pytest.fixture(scope="module")
def public_names() -> dict:
    """All functions, classes and modules of the package by name."""
    names = {}
    for info in pkgutil.walk_packages(diffusion_lib.__path__, "diffusion_lib."):
        if ".benchmark" not in info.name and not info.name.endswith("__main__"):
            names |= vars(importlib.import_module(info.name))
    return names


def bold_terms(stem: str) -> set[str]:
    """What a page sets in bold, in lower case, without a full stop."""
    prose = re.sub(r"\n# ", " ", (NOTEBOOKS / "scripts" / f"{stem}.py").read_text())
    return {
        re.sub(r"\s+", " ", bold).rstrip(".").lower()
        for bold in re.findall(r"\*\*(.+?)\*\*", prose)
    }


def test_terms_are_there_once_and_in_order():
    assert len(TERMS) >= 45
    assert all(len(row) == 4 for row in ROWS)
    plain = [term.lower().replace("é", "e") for term in TERMS]
    assert plain == sorted(set(plain))


def test_every_name_exists_in_the_package(public_names):
    for name in re.findall(r"`([^`]+)`", "\n".join(row[2] for row in ROWS)):
        first, *others = name.split(".")
        assert first in public_names, name
        for other in others:
            there = public_names[first]
            assert hasattr(there, other) or other in there.__annotations__, name


@pytest.mark.parametrize("row", ROWS, ids=TERMS)
def test_the_page_introduces_the_term_in_bold(row):
    number, stem = re.fullmatch(r"\[(\w+)\]\((\w+)\.ipynb\)", row[3]).groups()
    assert stem.startswith(f"{number}_")
    assert (NOTEBOOKS / f"{stem}.ipynb").is_file()
    assert row[0].lower() in bold_terms(stem)


def test_page_00_links_to_it():
    assert "(glossary.md)" in (NOTEBOOKS / "scripts" / "00_start_here.py").read_text()
