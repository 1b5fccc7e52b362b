"""Where measurements are kept: a line of json for each, in `data/measurements/NAME.jsonl`."""

import json
import os
import platform
import statistics
from collections import defaultdict
from pathlib import Path

import torch

from diffusion_lib.files import bundled_file


def measurements(name: str) -> list[dict]:
    """What was measured under this name: "quality", "ablation" or "steps", as it comes with the
    course. Each record is what one run gave.
    """
    return read(bundled_file(f"measurements/{name}.jsonl"))


def read(path: str | Path) -> list[dict]:
    """The records of a file; none if there is no such file yet."""
    path = Path(path)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: str | Path, record: dict) -> None:
    """Add a record, with the machine that made it, in one write: a kill leaves whole lines."""
    record = {
        **record,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "torch": torch.__version__.split("+")[0],
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(record) + "\n")


def medians(records: list[dict], keys: tuple[str, ...], value: str) -> dict[tuple, list[float]]:
    """[lowest, median, highest] of a value, over the records that agree in all keys."""
    groups = defaultdict(list)
    for record in records:
        groups[tuple(record[key] for key in keys)].append(record[value])
    return {key: [min(all), statistics.median(all), max(all)] for key, all in groups.items()}


def print_table(records: list[dict], keys: tuple[str, ...], value: str = "kernel") -> None:
    """A line for each group of `medians`, in the order of the records."""
    print(f"{value + ' distance':>44}: median (lowest to highest) of the seeds")
    for key, (lowest, middle, highest) in medians(records, keys, value).items():
        name = "  ".join(map(str, key))
        print(f"{name:>44}: {middle:7.3f} ({lowest:.3f} to {highest:.3f})")
