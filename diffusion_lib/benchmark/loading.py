"""Three ways to a batch are timed in turns: opening and resizing the files with Pillow, as a loader
without a cache does in every epoch; decoding them into the cache, once; reading the cache. Beside
them stands a training step, which must not wait for a batch. Ratios of one run compare; images per
second differ from machine to machine, and from day to day.
"""

import io
import itertools
import os
import tempfile

from PIL import Image, UnidentifiedImageError

from diffusion_lib.benchmark.config import LoadingConfig
from diffusion_lib.benchmark.records import print_table, with_range
from diffusion_lib.benchmark.timing import Stopwatch, take_turns
from diffusion_lib.config import TrainConfig
from diffusion_lib.diffusion import build
from diffusion_lib.images.cache import load_images
from diffusion_lib.images.folders import find_files
from diffusion_lib.training import Trainer

ROUNDS = 5
SECONDS = 0.1  # that a measurement lasts at least


def loading(path: str, config: LoadingConfig) -> None:
    """Time each way to the images of `path`, and print a table."""
    size, batch_size = config.image_size, config.batch_size
    files = find_files(path)
    names = files.names[: config.images]
    pixels = load_images(path, size, progress=True)
    settings = TrainConfig(image_size=size, batch_size=batch_size, width=config.width)
    trainer = Trainer(build(settings, pixels.shape[1]), pixels, settings)
    numbers = itertools.count()

    def open_and_resize() -> None:
        for name in names:
            try:
                image = Image.open(io.BytesIO(files.read(name)))
            except UnidentifiedImageError:
                continue
            image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS).tobytes()

    def fill_cache() -> None:
        usual = os.environ.get("XDG_CACHE_HOME", "")  # empty: as if it were not set
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            load_images(path, size)
        os.environ["XDG_CACHE_HOME"] = usual

    trainer.train_step()  # the first step prepares the others
    ways = {
        "open and resize with Pillow": (open_and_resize, len(names)),
        "decode into the cache, once": (fill_cache, len(pixels)),
        "read a batch from the cache": (lambda: trainer.batches.batch(next(numbers)), batch_size),
        "a training step": (trainer.train_step, batch_size),
    }
    watches = {name: Stopwatch(*way, trainer.device, SECONDS) for name, way in ways.items()}
    rates = take_turns({name: watch.rate for name, watch in watches.items()}, ROUNDS)
    base = rates["open and resize with Pillow"]["median"]
    print(f"{len(pixels)} images at {size}x{size}, batches of {batch_size}, on {trainer.device}")
    rows = [
        [name, with_range(rate["rounds"], ",.0f"), f"{rate['median'] / base:.2f}"]
        for name, rate in rates.items()
    ]
    print_table(["", "images/s", "ratio"], rows)
