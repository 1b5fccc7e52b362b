"""Measure speed and quality: python -m diffusion_lib.benchmark TASK [--help]

All tasks but `loading` add a line for every run to a file, and all but `speed` skip the runs that
it already holds.
"""

import sys
from dataclasses import fields
from pathlib import Path

from diffusion_lib.benchmark.config import QUALITY, SPEED, LoadingConfig, SpeedConfig
from diffusion_lib.cli import Parser, run
from diffusion_lib.config import BUNDLED, BUNDLED_NAMES
from diffusion_lib.errors import InputError

CONFIGS = {"loading": LoadingConfig, "speed": SpeedConfig}
TASKS = {
    "loading": "does training wait for images?",
    "speed": "how fast is training, beside the original and other trainers?",
    "quality": "how good are samples after so many seconds of training, beside other trainers?",
    "ablation": "what is each choice of the recipe worth?",
    "copying": "from how many images, and when, does a model copy them?",
    "predictions": "which prediction learns fastest, and from which timesteps?",
    "steps": "how good are samples after so many steps of each sampler?",
    "speedrun": "whose samples are best after a minute of training?",
}
DEFAULT = "(default: %(default)s)"


def build_parser(task: str) -> Parser:
    parser = Parser(prog=f"benchmark {task}", description=TASKS[task].capitalize())
    add = parser.add_argument
    if task == "loading":
        add("path", metavar="PATH", help=f"a folder of images, a .zip, or {BUNDLED_NAMES}")
    if task in ("speed", "quality"):
        names = SPEED if task == "speed" else QUALITY
        add("--who", nargs="+", choices=names, default=names, help="trainers (default: all)")
    if task in ("quality", "ablation", "copying", "predictions"):
        sets = {"ablation": BUNDLED[:1], "copying": BUNDLED}.get(task, BUNDLED[:2])
        add(
            "--data",
            nargs="+",
            default=sets,
            metavar="PATH",
            help=f"sets, bundled or of yours (default: {' '.join(sets)})",
        )
    if task in ("quality", "ablation", "copying"):
        add("-i", "--image_size", type=int, default=16, metavar="N", help=f"in pixels {DEFAULT}")
    if task == "quality":
        add(
            "--seconds",
            nargs="+",
            type=int,
            default=(60, 180),
            metavar="N",
            help="seconds of training (default: 60 180)",
        )
    if task == "copying":
        add(
            "--images",
            nargs="+",
            type=int,
            default=(50, 100, 200),
            metavar="N",
            help="(default: 50 100 200)",
        )
        add("--epochs", type=int, default=1000, metavar="N", help=f"at most {DEFAULT}")
    if task == "speedrun":
        add("files", nargs="*", default=[], metavar="FILE", help="a contestant (speedrun.py)")
    if task == "ablation":
        add(
            "--choices",
            nargs="+",
            metavar="NAME",
            help='of the recipe (default: all), or flags of train, as in "--patch 4"',
        )
    if task in ("ablation", "predictions"):
        add("--seconds", type=int, default=60, metavar="N", help=f"of training {DEFAULT}")
    if task in CONFIGS:
        parser.add_options(CONFIGS[task])
    else:
        seeds = {"speedrun": 5, "copying": 2}.get(task, 3)
        add("--seeds", type=int, default=seeds, metavar="N", help=f"runs of each {DEFAULT}")
    if task not in ("loading", "speedrun"):
        add(
            "-o",
            "--output",
            default=f"{task}.jsonl",
            metavar="FILE",
            help=f"for the records {DEFAULT}",
        )
    return parser


def main(arguments: list[str] | None = None) -> None:
    task, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if task in ("-h", "--help"):
        print(__doc__)
        print(*(f"    {name:<13}{question}" for name, question in TASKS.items()), sep="\n")
        return
    if task not in TASKS:
        raise InputError(f"the task must be one of {', '.join(TASKS)}, not {task!r}")
    chosen = vars(build_parser(task).parse_args(rest))
    if task in CONFIGS:
        names = {option.name for option in fields(CONFIGS[task])} & chosen.keys()
        chosen["config"] = CONFIGS[task](**{name: chosen.pop(name) for name in names})
    if task == "speed" and not Path(chosen["output"]).parent.is_dir():
        raise InputError(f"there is no folder {Path(chosen['output']).parent} for the measurements")

    from diffusion_lib.benchmark import copying, loading, predictions, quality, speed, speedrun

    own = dict(copying=copying, loading=loading, predictions=predictions)
    own |= dict(speed=speed, speedrun=speedrun)
    getattr(own.get(task, quality), task)(**chosen)


if __name__ == "__main__":
    sys.exit(run(main, "benchmark"))
