"""How fast is training? python -m diffusion_lib.benchmark speed [--who ours diffusers ...]

Ours, the original's loop and other trainers take turns, in one run, each in a process of its own,
on random images. For each: images a second in training, and the ratio to the original's step;
network calls times images a second in sampling (a forward pass of a batch without gradient, in
float32, as sampling does it); seconds from nothing to the end of the first step; the most memory
that it took (on a GPU what PyTorch allocated, elsewhere what the process grew by); operations of a
forward pass of one image; and the share of the device's speed that a training step reaches, when it
counts as three forward passes and a large matrix product in the same number format as the whole.
Peers have a network of about as many operations as ours, in the proportions of their documentation.

Of our loop it also says what it adds to the bare passes, and whether its cost is linear.
"""

import json
import platform
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from diffusion_lib.cli import Parser
from diffusion_lib.config import CHANNELS, Config, TrainConfig, option
from diffusion_lib.errors import InputError

TRAINERS = ("ours", "original", "diffusers", "denoising-diffusion-pytorch", "smalldiffusion")


@dataclass(frozen=True)
class SpeedConfig(Config):
    """What to measure with."""

    image_size: int = option(64, "images are this many pixels wide and high", "-i", at_least=8)
    batch_size: int = option(16, "images a step", "-b", at_least=1)
    channels: str = option("3", "1 for grey, 3 for colour", choices=CHANNELS[1:])
    width: int = option(64, "channels of our network's first level", at_least=8)
    blocks: int = option(2, "residual blocks of a level, on either side", at_least=1)
    patch: int = option(0, "fold squares of so many pixels into channels; 0 chooses", at_least=0)
    device: str = option("auto", "cuda, cuda:1, mps, cpu; auto takes the best there is")
    rounds: int = option(5, "turns that each trainer has", at_least=1)
    seconds: float = option(1.0, "that a measurement lasts at least", above=0)

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % 8:
            raise InputError(f"image_size must be a multiple of 8, not {self.image_size}")


def measure(settings: SpeedConfig, who: list[str]) -> dict:
    """All measurements. Trainers that are not installed are left out.

    Raises:
        InputError: a device that is not there, a network that cannot be, or too little memory.
    """
    import torch

    from diffusion_lib.benchmark.loop import Loop
    from diffusion_lib.benchmark.trainees import STEP_ALONE
    from diffusion_lib.benchmark.turns import MatrixProduct, Process, TimedTrainee, in_turns
    from diffusion_lib.devices import find_device

    device, rounds = find_device(settings.device), settings.rounds
    shared = ("image_size", "batch_size", "width", "blocks", "patch", "device")
    config = TrainConfig(
        **{name: getattr(settings, name) for name in shared},
        epochs=1000,  # a long run, for which a GPU's network is compiled
    )
    channels, seconds = int(settings.channels), settings.seconds
    names = [name for one in who for name in ((one, STEP_ALONE) if one == "original" else (one,))]
    trainees, left_out, loop = {}, {}, {}
    with ExitStack() as stack:

        def start(kind: type, *arguments) -> Process:
            return stack.enter_context(Process(kind, *arguments))

        for name in names:
            try:
                trainees[name] = start(TimedTrainee, name, config, channels, seconds)
            except ImportError as error:
                left_out[name] = f"pip install {name}"
                print(f"{name} is left out: {left_out[name]} ({error})", flush=True)
        records = {name: process.call("describe") for name, process in trainees.items()}
        products = {
            form: start(MatrixProduct, form, settings.device, seconds)
            for form in sorted({record["format"] for record in records.values()})
        }
        train = in_turns(
            {name: (process, "train") for name, process in trainees.items()}
            | {form: (process, "rate") for form, process in products.items()},
            rounds,
        )
        memory = {name: process.call("memory") for name, process in trainees.items()}
        sample = in_turns({name: (process, "sample") for name, process in trainees.items()}, rounds)
        if "ours" in trainees:
            ours = start(Loop, config, channels, rounds, seconds)
            loop = {"overhead": ours.call("overhead"), **ours.call("linearity")}
    for name, record in records.items():
        rate, whole = train[name]["median"], train[record["format"]]["median"]
        record.update(memory_bytes=memory[name], train=train[name], sample=sample[name])
        record["share_of_matrix_product"] = 3 * record["flops"] * rate / whole
        if STEP_ALONE in train:
            record["ratio_to_original"] = rate / train[STEP_ALONE]["median"]
    return {
        "settings": {**asdict(settings), "who": who},
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processor": platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "left_out": left_out,
        "trainers": records,
        "matrix_product": {form: train[form] for form in products},
        "loop": loop,
    }


def print_tables(report: dict) -> None:
    """What `measure` gave, for a reader."""
    settings, machine = report["settings"], report["machine"]
    size = settings["image_size"]
    print(
        f"\n{size}x{size}, {settings['channels']} channels, batches of {settings['batch_size']}, "
        f"on {machine['device']} ({machine['threads']} threads), PyTorch {machine['torch']}\n"
        f"images/s: median (lowest to highest) of {settings['rounds']} rounds\n"
    )
    print(
        f"{'':<27}{'width':>6}{'format':>10}{'GFLOP':>7}{'weights':>9}"
        f"{'training images/s':>24}{'ratio':>7}{'share':>7}{'sampling':>10}"
        f"{'first step':>12}{'memory':>11}"
    )
    for name, record in report["trainers"].items():
        train, ratio = record["train"], record.get("ratio_to_original")
        spread = f"{train['median']:.4g} ({train['lowest']:.4g} to {train['highest']:.4g})"
        print(
            f"{name:<27}{record['width']:>6}{record['format']:>10}{record['flops'] / 1e9:>7.2f}"
            f"{record['parameters'] / 1e6:>7.1f} M{spread:>24}"
            f"{'' if ratio is None else format(ratio, '.2f'):>7}"
            f"{record['share_of_matrix_product']:>7.0%}{record['sample']['median']:>10.4g}"
            f"{record['first_step_seconds']:>10.1f} s{record['memory_bytes'] / 2**20:>7.0f} MiB"
        )
    for format_, rate in report["matrix_product"].items():
        print(f"a matrix product in {format_}: {rate['median'] / 1e9:,.1f} GFLOP/s")
    if loop := report["loop"]:
        print(f"our loop adds {spread_of(loop['overhead'], '.1%')} to the bare passes")
        for name in ("batch", "pixels"):
            if name in loop:
                print(f"cost in {name}: {spread_of(loop[name], '.2f')} of linear")


def spread_of(summary: dict, form: str) -> str:
    """Median (lowest to highest)."""
    middle, lowest, highest = (format(summary[k], form) for k in ("median", "lowest", "highest"))
    return f"{middle} ({lowest} to {highest})"


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(prog="benchmark speed", description="How fast is training?")
    parser.add_argument("--who", nargs="+", choices=TRAINERS, default=TRAINERS)
    parser.add_options(SpeedConfig)
    parser.add_argument(
        "-o", "--output", default="speed.json", metavar="FILE", help="(default: %(default)s)"
    )
    chosen = vars(parser.parse_args(arguments))
    who, output = list(dict.fromkeys(chosen.pop("who"))), Path(chosen.pop("output"))
    settings = SpeedConfig(**chosen)
    if not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent} for the measurements")

    from diffusion_lib.files import save_file

    report = measure(settings, who)
    save_file(json.dumps(report, indent=1).encode(), output)
    print_tables(report)
