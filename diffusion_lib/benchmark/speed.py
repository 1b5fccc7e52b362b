"""Ours, the original's loop and other trainers take turns on random images, each in a process of
its own. For each: images per second in training, and the ratio to the original's step; network
calls times images per second in sampling (a forward pass of a batch, without gradient); seconds
from nothing to the end of the first step; the most memory that it took (on a GPU what PyTorch
allocated, elsewhere what the process grew by); operations of a forward pass of one image; and its
share of the speed of a large matrix product in the same number format, if a training step counts as
three forward passes. Peers have a network of about as many operations as ours.

Of our loop it also says what it adds to the bare passes, and whether its cost is linear: the time
of a step, over twice that of half the batch, and over four times that of a quarter of the pixels.
"""

import itertools
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor

from diffusion_lib.benchmark.config import SpeedConfig
from diffusion_lib.benchmark.contestants import original, ours
from diffusion_lib.benchmark.peers import PEERS
from diffusion_lib.benchmark.records import append, print_table, with_range
from diffusion_lib.benchmark.timing import Stopwatch, Worker, summary, synchronize, take_turns
from diffusion_lib.compiling import flops
from diffusion_lib.config import TrainConfig
from diffusion_lib.devices import find_device, peak_memory, prepare
from diffusion_lib.networks import build_network
from diffusion_lib.networks.original import OriginalUNet

IMAGES = 256  # to train on
STEP_ALONE = "original, step alone"  # without opening image files
HALF_BATCH, HALF_SIZE, BARE = "ours, half the batch", "ours, half the size", "ours, bare passes"
ORIGINALS = {"original": partial(original, from_files=True), STEP_ALONE: original}
WIDTH_STEPS = {"smalldiffusion": 32, "diffusers": 16, "denoising-diffusion-pytorch": 8}


def speed(config: SpeedConfig, who: list[str], output: str) -> None:
    """Measure, add one record to `output`, and print it. Trainers that are not installed are left
    out.

    Raises:
        InputError: a device that is not there, a network that cannot be, or too little memory.
    """
    device, who = find_device(config.device), list(dict.fromkeys(who))
    shared = ("image_size", "batch_size", "channels", "width", "blocks", "patch")
    shared = {name: getattr(config, name) for name in shared}
    # a long run, for which a GPU's network is compiled
    settings = TrainConfig(**shared, device=str(device), epochs=1000)
    workers, trainers, left_out = {}, {}, {}
    with ExitStack() as stack:
        for label, arguments in contestants(settings, who).items():
            worker = stack.enter_context(Worker())
            try:
                trainers[label] = worker.run(start_training, *arguments, config.seconds)
                workers[label] = worker
            except ImportError as error:
                left_out[label] = f"pip install {label}"
                print(f"{label} is left out: {left_out[label]} ({error})", flush=True)
        measures = {label: partial(worker.run, rate, "train") for label, worker in workers.items()}
        if "ours" in workers:
            measures[BARE] = partial(workers["ours"].run, rate, "bare")
        formats = sorted({facts["format"] for facts in trainers.values()})
        for form in formats:
            worker = stack.enter_context(Worker())
            worker.run(start_matrix_product, form, device, config.seconds)
            measures[form] = partial(worker.run, rate, "product")
        train = take_turns(measures, config.rounds)
        for label in {HALF_BATCH, HALF_SIZE} & trainers.keys():
            del trainers[label]
        for label, facts in trainers.items():
            facts["memory_bytes"] = workers[label].run(start_predicting, config.seconds)
        measures = {label: partial(workers[label].run, rate, "predict") for label in trainers}
        sample = take_turns(measures, config.rounds)

    for label, facts in trainers.items():
        median = train[label]["median"]
        facts.update(train=train[label], sample=sample[label])
        facts["share_of_matrix_product"] = (
            3 * facts["flops"] * median / train[facts["format"]]["median"]
        )
        if STEP_ALONE in train:
            facts["ratio_to_original"] = median / train[STEP_ALONE]["median"]
    record = {
        "settings": {**asdict(config), "who": who},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "left_out": left_out,
        "trainers": trainers,
        "matrix_product": {form: train[form] for form in formats},
        "loop": loop_costs(train),
    }
    append(output, record)
    print_record(record)


def contestants(config: TrainConfig, who: list[str]) -> dict[str, tuple[str, TrainConfig, int]]:
    """For each that is trained: who, with which configuration, on images of which size."""
    size, half = config.image_size, replace(config, batch_size=max(1, config.batch_size // 2))
    all = {}
    for name in who:
        all[name] = (name, config, size)
        if name == "original":
            all[STEP_ALONE] = (STEP_ALONE, config, size)
        if name == "ours" and config.batch_size > 1:
            all[HALF_BATCH] = (name, half, size)
        if name == "ours" and fits(config, size // 2):
            all[HALF_SIZE] = (name, config, size // 2)
    return all


def fits(config: TrainConfig, size: int) -> bool:
    """Whether our network for images of the configured size also takes those of another size."""
    with torch.device("meta"):
        shape = build_network(config, int(config.channels)).arguments
    return size % (shape["patch"] * 2 ** (len(shape["multipliers"]) - 1)) == 0


def loop_costs(train: dict[str, dict]) -> dict[str, dict]:
    """What a step of ours costs, from pairs of measurements: what it adds to the bare passes, and
    as a multiple of what it would cost if its cost were linear.
    """

    def ratios(label: str) -> list[float]:  # of the times, which are 1 / rates
        pairs = zip(train[label]["rounds"], train["ours"]["rounds"], strict=True)
        return [other / ours for other, ours in pairs]

    costs = {}
    if BARE in train:
        costs["overhead"] = summary([ratio - 1 for ratio in ratios(BARE)])
    if HALF_BATCH in train:
        costs["batch"] = summary(ratios(HALF_BATCH))
    if HALF_SIZE in train:
        costs["pixels"] = summary([ratio / 4 for ratio in ratios(HALF_SIZE)])
    return costs


def print_record(record: dict) -> None:
    settings = record["settings"]
    print(
        f"\n{settings['image_size']}x{settings['image_size']}, {settings['channels']} channels, "
        f"batches of {settings['batch_size']}, on {record['device']}; median (lowest to highest) "
        f"of {settings['rounds']} rounds\n"
    )
    head = "width,format,GFLOP,weights,training images/s,ratio,share,sampling,first step,memory"
    rows = [
        [
            name,
            str(facts["width"]),
            facts["format"],
            f"{facts['flops'] / 1e9:.2f}",
            f"{facts['parameters'] / 1e6:.1f} M",
            with_range(facts["train"]["rounds"], ".4g"),
            f"{facts['ratio_to_original']:.2f}" if "ratio_to_original" in facts else "",
            f"{facts['share_of_matrix_product']:.0%}",
            f"{facts['sample']['median']:.4g}",
            f"{facts['first_step_seconds']:.1f} s",
            f"{facts['memory_bytes'] / 2**20:.0f} MiB",
        ]
        for name, facts in record["trainers"].items()
    ]
    print_table(["", *head.split(",")], rows)
    for form, found in record["matrix_product"].items():
        print(f"a matrix product in {form}: {found['median'] / 1e9:,.1f} GFLOP/s")
    for name, found in record["loop"].items():
        if name == "overhead":
            print(f"our loop adds {with_range(found['rounds'], '.1%')} to the bare passes")
        else:
            print(f"cost in {name}: {with_range(found['rounds'], '.2f')} of linear")


# --------------------------------------------------------------------------------------------------
# In the process of a contestant

running: dict = {}  # the contestant, and a stopwatch for each measure


def start_training(name: str, config: TrainConfig, image_size: int, seconds: float) -> dict:
    """Do the first step, and prepare `rate`. Returns what is known without it."""
    device, make = torch.device(config.device), {"ours": ours, **ORIGINALS, **PEERS}[name]
    pixels, width = random_pixels(int(config.channels), image_size), 0
    if name in PEERS:
        width = width_for_like_flops(name, config, pixels)
        make = partial(make, width=width)
    operations = forward_flops(name, config, pixels, width)
    weight = torch.zeros(1, requires_grad=True)
    weight.sum().backward()
    torch.optim.Adam([weight]).step()  # imports half of torch, which is not to be counted

    memory, started = peak_memory(device), time.perf_counter()
    contestant = make(pixels, config)
    step = partial(contestant.step, 0.5)
    step()
    synchronize(device)
    first_step = time.perf_counter() - started
    shape = (3 if name in ORIGINALS else pixels.shape[1], image_size, image_size)
    running.update(contestant=contestant, config=config, shape=shape, memory=memory)
    running["train"] = Stopwatch(step, config.batch_size, device, seconds)
    if contestant.bare_step:
        contestant.bare_step()
        running["bare"] = Stopwatch(contestant.bare_step, config.batch_size, device, seconds)
    return {
        "width": width or (config.image_size if name in ORIGINALS else config.width),
        "format": format_name(contestant.precision, device),
        "parameters": sum(weights.numel() for weights in contestant.network.parameters()),
        "flops": operations,
        "first_step_seconds": first_step,
    }


def start_predicting(seconds: float) -> int:
    """Prepare `rate("predict")`. Returns the bytes that the contestant took before that."""
    contestant, config = running["contestant"], running["config"]
    device = torch.device(config.device)
    memory = peak_memory(device) - running["memory"]
    x = torch.randn(config.batch_size, *running["shape"])
    predict = torch.no_grad()(partial(contestant.predict, x.to(device)))
    contestant.network.eval()
    predict()
    running["predict"] = Stopwatch(predict, config.batch_size, device, seconds)
    return memory


def start_matrix_product(form: str, device: torch.device, seconds: float) -> None:
    """Of two large square matrices: what the device can do in a number format."""
    prepare(device)
    torch.set_float32_matmul_precision("high" if form == "TF32" else "highest")
    size = 2048 if device.type == "cpu" else 8192
    precision = torch.float32 if form == "TF32" else getattr(torch, form)
    factor = torch.randn(size, size, device=device, dtype=precision)
    multiply = partial(torch.mm, factor, factor, out=torch.empty_like(factor))
    multiply()
    running["product"] = Stopwatch(multiply, 2 * size**3, device, seconds)


def rate(measure: str) -> float:
    """Images per second, in training ("train", "bare") or in a network call ("predict"), or
    floating-point operations per second ("product").
    """
    return running[measure].rate()


def random_pixels(channels: int, size: int) -> Tensor:
    """Uint8, (IMAGES, channels, size, size)."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(256, (IMAGES, channels, size, size), dtype=torch.uint8, generator=random)


def width_for_like_flops(name: str, config: TrainConfig, pixels: Tensor) -> int:
    """The width at which a peer's network comes nearest to ours in operations."""
    target, below = forward_flops("ours", config, pixels, 0), 0
    for width in itertools.count(WIDTH_STEPS[name], WIDTH_STEPS[name]):
        found = forward_flops(name, config, pixels, width)
        if found >= target:
            return width - WIDTH_STEPS[name] if below and target - below < found - target else width
        below = found


def forward_flops(name: str, config: TrainConfig, pixels: Tensor, width: int) -> int:
    """Floating-point operations of a forward pass of one image."""
    channels, size = pixels.shape[1:3]
    with torch.device("meta"):  # shapes only: nothing is computed
        if name == "ours":
            network = build_network(config, channels)
        elif name in ORIGINALS:
            network, channels = OriginalUNet(size), 3
        else:
            network = PEERS[name](pixels, replace(config, device="meta"), width).network
    return flops(network, (channels, size, size))


def format_name(precision: torch.dtype, device: torch.device) -> str:
    """In which the device computes convolutions: on a GPU from Ampere on, TF32 for float32."""
    name = str(precision).removeprefix("torch.")
    has_tf32 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return "TF32" if name == "float32" and has_tf32 else name
