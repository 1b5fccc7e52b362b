"""Measure: python -m diffusion_lib.benchmark loading|speed|quality|ablation|steps [--help]

    loading PATH   does training wait for images?
    speed          how fast is training, beside the original and other trainers?
    quality        how good after so many seconds of training, beside other trainers?
    ablation       what is each choice of the recipe worth?
    steps          how good after so many steps of each sampler?

The last three add a line for every run to --output, and go on where that file ends.
"""

import sys

from diffusion_lib.cli import Parser, run
from diffusion_lib.config import BUNDLED
from diffusion_lib.errors import InputError

TRAINERS = ("ours", "smalldiffusion", "diffusers", "denoising-diffusion-pytorch")


def build_parser(task: str) -> Parser:
    parser = Parser(prog=f"benchmark {task}", description=f"See the {task}.py of this package.")
    if task == "quality":
        parser.add_argument("--who", nargs="+", choices=TRAINERS, default=TRAINERS)
        parser.add_argument("--data", nargs="+", choices=BUNDLED, default=("faces", "digits"))
        parser.add_argument("--seconds", nargs="+", type=int, default=(60, 180), metavar="N")
    if task == "ablation":
        parser.add_argument("--data", choices=BUNDLED, default="faces")
        parser.add_argument("--seconds", type=int, default=60, metavar="N")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each kind")
    parser.add_argument(
        "-o", "--output", default=f"{task}.jsonl", metavar="FILE", help="(default: %(default)s)"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    task, *rest = arguments or ["--help"]
    if task in ("-h", "--help"):
        print(__doc__)
        return
    if task == "loading":
        from diffusion_lib.benchmark.loading import main as loading

        loading(rest)
        return
    if task == "speed":
        from diffusion_lib.benchmark.speed import main as speed

        speed(rest)
        return
    if task not in ("quality", "ablation", "steps"):
        raise InputError(f"choose loading, speed, quality, ablation or steps, not {task!r}")
    chosen = vars(build_parser(task).parse_args(rest))
    output, seeds = chosen.pop("output"), chosen.pop("seeds")

    from diffusion_lib.benchmark import ablation, quality, steps
    from diffusion_lib.benchmark.records import print_table, read

    if task == "quality":
        quality.measure(output, seeds=seeds, **chosen)
        print_table(read(output), ("data", "seconds", "who"))
    elif task == "ablation":
        ablation.measure(output, seeds=seeds, **chosen)
        print_table(read(output), ("choice",))
    else:
        steps.measure(output, seeds)
        print_table(read(output), ("sampler", "steps"))


if __name__ == "__main__":
    sys.exit(run(main, "benchmark"))
