"""Labels of images: the folders in which they lie, or columns of a table beside them."""

import csv
import io
import json
import math
import posixpath
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion_lib.errors import InputError
from diffusion_lib.images.folders import FolderFiles, ZipFiles, find_files, is_hidden

FOLDER = "folder"
TABLES = (".csv", ".tsv", ".jsonl")
METADATA = ("metadata.csv", "metadata.jsonl")  # the names of Hugging Face's ImageFolder
FILE_COLUMNS = ("file_name", "file", "filename", "image", "path", "name", "image_id")
MOST_CLASSES = 1000


class Labels(NamedTuple):
    """What is known of each image.

    values: int64, shape (N, number of columns): the class of image i in each column.
    names: the names of the classes of each column: names[column][values[i, k]]. Sorted, by value
        where all are numbers.
    """

    values: Tensor
    names: dict[str, list[str]]


def read_labels(path: str | Path, files: Sequence[str], columns: str) -> Labels:
    """Labels for the images of `load_image_set`.

    A table is `metadata.csv`, `metadata.jsonl` or the only .csv, .tsv or .jsonl that lies at the
    path, or in the one folder that holds everything there. Its names of files may lack the folder
    or the extension. Values are names of classes as they stand, numbers too.

    Args:
        path: as for `load_image_set`.
        files: the file of each image, as `load_image_set` gives them.
        columns: "folder" for the name of the first folder below the path, as in torchvision's
            ImageFolder; or one or more columns of the table, with a comma between them.

    Raises:
        InputError: images without a label, a column of one class or of very many, or a table that
            is missing or damaged, contradicts itself, or does not fit the files.
    """
    names = next(csv.reader([columns], skipinitialspace=True), [])
    names = [name.strip() for name in names]
    if not all(names) or not names or len(set(names)) < len(names):
        raise InputError(f"labels must be {FOLDER!r} or different columns of a table: {columns!r}")
    found = find_files(path)
    if names == [FOLDER]:
        known, labelled = folder_labels(found, files, path)
    else:
        known, labelled = table_labels(found, files, names, path)
    if missing := [name for name in dict.fromkeys(files) if not all(known.get(name, [""]))]:
        raise InputError(
            f"{counted(len(missing), 'image file')} of {path} without a label: {some(missing)}"
        )
    classes = {}
    for k, column in enumerate(names):
        used = {known[name][k] for name in files}
        check_classes(used, column, len(files), path)
        if unused := {row[k] for row in labelled} - used - {""}:
            warnings.warn(
                f"{counted(len(unused), 'class', 'es')} of {column!r} in {path} left out, without "
                f"an image that can be read: {some(in_order(unused), 10)}",
                stacklevel=2,
            )
        classes[column] = in_order(used)
    numbers = [{name: i for i, name in enumerate(each)} for each in classes.values()]
    rows = [[n[label] for n, label in zip(numbers, known[name], strict=True)] for name in files]
    return Labels(torch.tensor(rows), classes)


def check_classes(used: set[str], column: str, images: int, path: str | Path) -> None:
    """Raise InputError for a column that tells nothing, or that is not one of classes."""
    if len(used) == 1:
        raise InputError(f"all images of {path} have the same {column!r}: {min(used)}")
    if len(used) > MOST_CLASSES or len(used) == images:
        raise InputError(
            f"{column!r} of {path} has {len(used):,} different values for {images:,} images, "
            f"such as {some(in_order(used))}: choose a column of classes (at most {MOST_CLASSES:,})"
        )


def folder_labels(
    found: FolderFiles | ZipFiles, files: Sequence[str], path: str | Path
) -> tuple[dict[str, list[str]], list[list[str]]]:
    """The label of each file, and all labels that there are: [folder] each."""
    top = common_folder(files)
    depth = 1 if top and any(name.count("/") > 1 for name in files) else 0

    def label(name: str) -> str:
        parts = name.split("/")
        return parts[depth] if len(parts) > depth + 1 else ""

    known = {name: [label(name)] for name in files}
    if not any(map(any, known.values())):
        raise InputError(
            f"the images of {path} do not lie in folders that could be their labels: "
            "name a column of a table instead"
        )
    inside = [name for name in found.names if not depth or name.startswith(top)]
    empty = []
    if isinstance(found, FolderFiles):  # folders without any file in them
        empty = [
            folder.name for folder in (found.path / (top * depth)).iterdir() if folder.is_dir()
        ]
    return known, [[name] for name in {*map(label, inside), *empty} if not is_hidden(name)]


def common_folder(names: Iterable[str]) -> str:
    """The one folder in which all files lie, with "/" behind it, or ""."""
    tops = {"".join(name.partition("/")[:2]) for name in names}
    top = tops.pop() if len(tops) == 1 else ""
    return top if top.endswith("/") else ""


def table_labels(
    found: FolderFiles | ZipFiles, files: Sequence[str], columns: list[str], path: str | Path
) -> tuple[dict[str, list[str]], list[list[str]]]:
    """The labels of each file by a table, and the labels in all rows of the table."""
    name = find_table(found.names, common_folder(files), path)
    header, rows = read_table(name, found.read(name))
    for column in columns:
        if header.count(column) != 1:
            close = get_close_matches(column, header, n=1, cutoff=0.6)
            raise InputError(
                f"{name} of {path} has {header.count(column) or 'no'} column {column!r}"
                f"{f', did you mean {close[0]!r}?' if close else ':'} It has {', '.join(header)}"
            )
    key = next((column for column in FILE_COLUMNS if column in header), header[0])
    known, row_of = {}, {}
    places = Places(files, posixpath.dirname(name))
    labelled = [[row.get(column, "") for column in columns] for row in rows]
    for number, (row, labels) in enumerate(zip(rows, labelled, strict=True), start=2):
        for file in places.find(row.get(key, "")):
            if known.setdefault(file, labels) != labels:
                raise InputError(
                    f"{name} of {path} contradicts itself: {file} is {', '.join(known[file])} in "
                    f"row {row_of[file]}, but {', '.join(labels)} in row {number}"
                )
            row_of.setdefault(file, number)
    if not known:
        example = next((row.get(key) for row in rows if row.get(key)), "nothing")
        raise InputError(
            f"no row of {name} fits an image of {path}: in the column {key!r} stand names such as "
            f"{example}, but files are called {files[0]}"
        )
    return known, labelled


def find_table(names: Sequence[str], top: str, path: str | Path) -> str:
    """The name of the table of labels.

    Raises:
        InputError: there is none, or one of several would have to be chosen.
    """
    for folder in dict.fromkeys(["", top]):
        inside = [name.removeprefix(folder) for name in names if name.startswith(folder)]
        tables = [n for n in inside if n.lower().endswith(TABLES) and "/" not in n]
        for chosen in [name for name in METADATA if name in tables] or tables:
            if len(tables) > 1 and chosen not in METADATA:
                raise InputError(
                    f"which of the tables in {path} has the labels: {some(tables, 5)}? "
                    "Call it metadata.csv, or take the others away"
                )
            return folder + chosen
    raise InputError(
        f"there is no table with labels in {path}: add a metadata.csv with the columns file_name "
        f"and label, or use {FOLDER!r} for the names of folders"
    )


def read_table(name: str, content: bytes) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows of a table, all values as text, "" where there is none.

    Raises:
        InputError: it cannot be read.
    """
    text = decoded(content)
    try:
        if name.lower().endswith(".jsonl"):
            lines = [line for line in text.split("\n") if line.strip()]
            rows = [{key: as_text(value) for key, value in json.loads(x).items()} for x in lines]
            header = list(dict.fromkeys(key for row in rows for key in row))
        else:
            first = text.partition("\n")[0]
            tabs = name.lower().endswith(".tsv") or first.count("\t") > first.count(",")
            mark = "\t" if tabs else ";" if first.count(";") > first.count(",") else ","
            lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
            header = [column.strip() for column in next(lines, [])]
            rows = [dict(zip(header, map(str.strip, line), strict=False)) for line in lines if line]
    except (AttributeError, csv.Error, json.JSONDecodeError) as error:
        raise InputError(f"the table {name} is damaged: {error}") from error
    if not rows:
        raise InputError(f"the table {name} has no rows")
    return header, rows


def decoded(content: bytes) -> str:
    """The text of a table: UTF-16 or UTF-8 with its mark, UTF-8, or else Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def as_text(value: object) -> str:
    """A value of a .jsonl as the name of a class."""
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value)


class Places:
    """Finds the files that a table means, whose names may lack the folder or the extension."""

    def __init__(self, files: Iterable[str], folder: str):
        """folder: that of the table, to which its names are relative."""
        self.by_form: list[dict[str, list[str]]] = [{}, {}, {}, {}]
        for file in dict.fromkeys(files):
            below = file.removeprefix(f"{folder}/" if folder else "")
            for forms, form in zip(self.by_form, name_forms(below), strict=True):
                forms.setdefault(form, []).append(file)

    def find(self, name: str) -> list[str]:
        """The one file of this name, in its fullest form that fits; [] if none or several do."""
        for forms, form in zip(self.by_form, name_forms(name), strict=True):
            if fitting := forms.get(form) or forms.get(name):
                return fitting if len(fitting) == 1 else []
        return []


def name_forms(name: str) -> tuple[str, str, str, str]:
    """A path; without extension; without folder; without both."""
    path = posixpath.normpath(unicodedata.normalize("NFC", name.replace("\\", "/")))
    base = posixpath.basename(path)
    return path, without_extension(path), base, without_extension(base)


def without_extension(name: str) -> str:
    """photo.jpg -> photo, head.nii.gz -> head."""
    return posixpath.splitext(name.removesuffix(".gz"))[0]


def in_order(labels: Iterable[str]) -> list[str]:
    """Names of classes, sorted: as numbers if all are, otherwise as text."""

    def value(label: str) -> float:
        with suppress(ValueError):
            return float(label)
        return math.nan

    numbers = {label: value(label) for label in labels}
    if all(map(math.isfinite, numbers.values())):
        return sorted(numbers, key=lambda label: (numbers[label], label))
    return sorted(numbers)


def counted(count: int, noun: str, ending: str = "s") -> str:
    """1 file, 2,000 files."""
    return f"{count:,} {noun}{ending if count != 1 else ''}"


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and that there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
