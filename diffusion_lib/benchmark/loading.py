"""How fast is the loader? python -m diffusion_lib.benchmark loading PATH [--image_size N]

Three ways to a batch are timed in turns, in one run: opening and resizing the files with Pillow, as
a loader without a cache does every epoch; decoding them into the cache, once; reading the cache.
Beside them stands a training step, which is what a batch must not keep waiting. Ratios of one run
compare; images per second differ from machine to machine, and from day to day.
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from diffusion_lib.cli import Parser
from diffusion_lib.config import Config, TrainConfig, option

ROUNDS = 5


@dataclass(frozen=True)
class BenchmarkConfig(Config):
    """What to measure with."""

    image_size: int = option(64, "images become this many pixels wide and high", "-i", at_least=1)
    batch_size: int = option(64, "images a batch", "-b", at_least=1)
    images: int = option(512, "files to open in a round", at_least=1)
    width: int = option(64, "channels of the network's first level", at_least=8)


def rates(ways: dict[str, tuple[Callable[[], None], int]]) -> dict[str, list[float]]:
    """Images per second of each way, ROUNDS times, in turns so that all meet the same weather.

    Args:
        ways: for each name a function, and how many images a call of it handles.
    """
    measured = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, (function, images) in ways.items():
            started = time.perf_counter()
            function()
            measured[name].append(images / (time.perf_counter() - started))
    return measured


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog="benchmark loading", description="How fast is the loader?")
    parser.add_argument("PATH", help="a folder of images, a .zip, or faces, digits or brains")
    parser.add_options(BenchmarkConfig)
    chosen = vars(parser.parse_args(arguments))
    path = chosen.pop("PATH")
    config = BenchmarkConfig(**chosen)

    from PIL import Image, UnidentifiedImageError

    from diffusion_lib.images.cache import load_images
    from diffusion_lib.images.files import find_files
    from diffusion_lib.training import Trainer, build

    size, batch = config.image_size, config.batch_size
    files = find_files(path)
    names = files.names[: config.images]

    def open_each() -> None:
        for name in names:
            try:
                image = Image.open(io.BytesIO(files.read(name)))
            except UnidentifiedImageError:
                continue
            image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS).tobytes()

    def fill_cache() -> None:
        with tempfile.TemporaryDirectory() as folder:
            usual, os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME"), folder
            load_images(path, size)
            del os.environ["XDG_CACHE_HOME"]
            if usual:
                os.environ["XDG_CACHE_HOME"] = usual

    pixels = load_images(path, size, progress=True)
    settings = TrainConfig(image_size=size, batch_size=batch, width=config.width)
    trainer = Trainer(build(settings, pixels.shape[1]), pixels, settings)
    numbers = iter(range(10**9))

    def read_cache() -> None:
        for _ in range(20):
            trainer.batches.batch(next(numbers))

    def train() -> None:
        trainer.train_step()[0].item()

    train()  # the first step prepares the others
    measured = rates(
        {
            "open and resize with Pillow": (open_each, len(names)),
            "decode into the cache, once": (fill_cache, len(pixels)),
            "read a batch from the cache": (read_cache, 20 * batch),
            "a training step": (train, batch),
        }
    )
    base = statistics.median(measured["open and resize with Pillow"])
    print(f"{len(pixels)} images at {size}x{size}, batches of {batch}, on {trainer.device}")
    print(f"{'':<30}{'images/s':>12}{'lowest':>12}{'highest':>12}{'ratio':>9}")
    for name, values in measured.items():
        middle = statistics.median(values)
        print(
            f"{name:<30}{middle:>12,.0f}{min(values):>12,.0f}{max(values):>12,.0f}"
            f"{middle / base:>9.2f}"
        )
