"""The speedrun: whose samples are best after sixty seconds of training on one core?

A contestant is a Python file with one function:

    def contestant(pixels, seed): return Contestant(...)

(contestants.py says what a `Contestant` is; most are `ours(pixels, TrainConfig(...))`.) It trains
on `faces`, and anew on `digits`, for SECONDS that its process computes, building included. Then it
draws SAMPLES in at most MOST_CALLS calls of its network an image. The judge is the kernel distance
to the set. Recall and copies are noted beside it: few copies are a condition, since a network that
repeats its images would win.
"""

import importlib.util
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from diffusion_lib.benchmark.contestants import Contestant
from diffusion_lib.benchmark.quality import IMAGE_SIZE, Scorer, draw, train
from diffusion_lib.benchmark.records import medians, print_table, read, run_missing, with_range
from diffusion_lib.errors import InputError
from diffusion_lib.files import bundled_file, first_line
from diffusion_lib.images.cache import load_images
from diffusion_lib.metrics import memorization, precision_recall
from diffusion_lib.plots import save_image

SETS = ("faces", "digits")
SECONDS = 60
MOST_CALLS = 25
SHOWN = 32  # samples in the picture
MOST_COPIES = 0.05  # of the samples


def speedrun(files: Sequence[str], seeds: int) -> None:
    """Measure contestants: each has a line for each set and seed in a file beside its own, and what
    is there is not measured again. Then show them below the records.
    """
    images = {name: load_images(name, IMAGE_SIZE) for name in SETS}
    scorer = cache(lambda name: Scorer(images[name]))
    mine = [Path(file).resolve() for file in files]
    for file, make in [(file, load(file)) for file in mine]:
        measure(file, make, seeds, images, scorer)
    show(records() + [file for file in mine if file not in records()])


def measure(
    file: Path,
    make: Callable[[Tensor, int], Contestant],
    seeds: int,
    images: dict[str, Tensor],
    scorer: Callable[[str], Scorer],
) -> None:
    """Do the runs of a contestant that its records lack."""

    def score(run: dict) -> dict:
        torch.manual_seed(run["seed"])
        pixels, judge = images[run["data"]], scorer(run["data"])
        contestant, steps = train(partial(make, pixels, run["seed"]), SECONDS)
        with images_counted(type(contestant.network)) as calls:
            samples = draw(contestant)
        if calls[0] > MOST_CALLS * len(samples):
            raise InputError(
                f"{file} calls its network {calls[0] / len(samples):.0f} times for an image, and "
                f"{MOST_CALLS} are allowed"
            )
        if run["seed"] == 0:
            save_image(torch.cat([*samples[:SHOWN]], dim=2), picture(file, run["data"]))
        recall = precision_recall(judge.real.rows, judge.statistics(samples).rows).recall
        copies = memorization(samples, pixels).copies
        more = {"recall": round(recall, 3), "copies": round(copies, 3), "steps": steps}
        return {**judge.distances(samples), **more}

    runs = [{"data": name, "seed": seed} for name, seed in product(SETS, range(seeds))]
    run_missing(file.with_suffix(".jsonl"), runs, score)


def load(file: Path) -> Callable[[Tensor, int], Contestant]:
    """The function `contestant` of a Python file.

    Raises:
        InputError: no such file, one that fails, or one without that function.
    """
    try:
        spec = importlib.util.spec_from_file_location(file.stem, file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.contestant
    except Exception as error:  # whatever is in it
        raise InputError(f"{file} is no contestant of the speedrun: {first_line(error)}") from error


@contextmanager
def images_counted(kind: type[nn.Module]) -> Iterator[list[int]]:
    """Count the images that networks of this kind are called with: the only item of the list."""
    count = [0]

    def add(network: nn.Module, inputs: tuple) -> None:
        if type(network) is kind:
            count[0] += len(inputs[0])

    hook = register_module_forward_pre_hook(add)
    try:
        yield count
    finally:
        hook.remove()


def records() -> list[Path]:
    """The contestants that come with the course, the first one first."""
    return sorted((bundled_file("measurements/quality.jsonl").parent / "records").glob("*.py"))


def picture(file: Path, data: str) -> Path:
    """Where samples of a contestant are kept, of its run with seed 0: side by side."""
    return file.with_name(f"{file.stem}_{data}.png")


def pictured(file: Path, data: str) -> Tensor:
    """These samples, uint8, (SHOWN, C, H, W)."""
    with Image.open(picture(file, data)) as row:
        pixels = torch.from_numpy(np.atleast_3d(np.asarray(row)).copy())  # (H, SHOWN H, C)
    return torch.stack(pixels.permute(2, 0, 1).split(len(pixels), dim=2))


def show(files: list[Path]) -> None:
    """A table of contestants, each with its headline and the medians of its seeds."""
    rows = []
    for file in files:
        records = read(file.with_suffix(".jsonl"))
        if not records:
            continue
        cells = []
        for name in SETS:
            found = medians(records, ("data",), "kernel")[name,]
            cells.append(with_range(found, ".2f"))
        copies = max(statistics.median(values(records, name, "copies")) for name in SETS)
        note = f"{copies:.0%}" if copies <= MOST_COPIES else f"{copies:.0%}: too many"
        rows.append([headline(file), *cells, note])
    print_table(["contestant", *SETS, "copies"], rows)
    print(f"kernel distance after {SECONDS} s of one core: median (lowest to highest) of the seeds")


def values(records: list[dict], data: str, key: str) -> list[float]:
    return [record[key] for record in records if record["data"] == data]


def headline(file: Path) -> str:
    """The first line of a contestant's file, which is its docstring."""
    return file.read_text().splitlines()[0].strip('"')
