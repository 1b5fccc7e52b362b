"""Records of measurements, one line of JSON each, and the tables that show them."""

import json
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from diffusion_lib.files import bundled_file


def measurements(name: str) -> list[dict]:
    """The bundled records "quality", "ablation", "predictions" or "steps", one for each run."""
    return read(bundled_file(f"measurements/{name}.jsonl"))


def read(path: str | Path) -> list[dict]:
    """The records of a file; none if there is no such file yet."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: str | Path, record: dict) -> None:
    """Add a record, with the machine that made it, in one write: a kill leaves whole lines."""
    threads = torch.get_num_threads()
    threads = "one thread" if threads == 1 else f"{threads} threads"
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {threads}"
    record = {**record, "machine": machine, "torch": torch.__version__.split("+")[0]}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(record) + "\n")


def run_missing(path: str | Path, runs: Iterable[dict], measure: Callable[[dict], dict]) -> None:
    """Do the runs that the file at `path` does not hold yet, and add a record of each.

    runs: what identifies each run; its record begins with that, and goes on with its measures.
    """
    records = read(path)
    for run in runs:
        if not any(run.items() <= record.items() for record in records):
            append(path, {**run, **measure(run)})
            print(*run.values(), flush=True)


def medians(records: list[dict], keys: tuple[str, ...], value: str) -> dict[tuple, list[float]]:
    """[lowest, median, highest] of a value, over the records that agree in all keys."""
    groups = defaultdict(list)
    for record in records:
        groups[tuple(record[key] for key in keys)].append(record[value])
    return {key: [min(all), statistics.median(all), max(all)] for key, all in groups.items()}


def print_medians(records: list[dict], keys: tuple[str, ...]) -> None:
    """The kernel distance of each group of `medians`, over the seeds."""
    found = medians(records, keys, "kernel")
    rows = [[*map(str, key), with_range(numbers, ".3f")] for key, numbers in found.items()]
    print_table([*keys, "kernel distance"], rows)
    print("median (lowest to highest) of the seeds")


def with_range(numbers: list[float], form: str) -> str:
    """median (lowest to highest)"""
    median, lowest, highest = statistics.median(numbers), min(numbers), max(numbers)
    return f"{median:{form}} ({lowest:{form}} to {highest:{form}})"


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as they must be, the first one flush left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for first, *others in [head, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]).rstrip())
