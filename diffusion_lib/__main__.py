"""Simple Diffusion: train a diffusion model on images, and make new ones.

simple-diffusion COMMAND ...         or:  python -m diffusion_lib COMMAND ...
simple-diffusion COMMAND --help      all options of a command
simple-diffusion --version
"""

import sys
from importlib import import_module

from diffusion_lib import __version__
from diffusion_lib.cli import run
from diffusion_lib.errors import did_you_mean

# What each does, and an example.
COMMANDS = {
    "train": ("train a model on images", "train knees path/to/images --image_size 64"),
    "predict": ("make new images with a model", "predict faces --num_images 64 --grid"),
    "evaluate": ("compare its images with real ones", "evaluate knees.pth path/to/images"),
    "environment": ("check what is installed", "environment"),
    "benchmark": ("measure speed and quality", "benchmark speed --help"),
}


def main() -> int:
    """Call the command that the first argument names, with the others. Returns its exit status."""
    command, *others = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(__doc__)
        for name, (purpose, example) in COMMANDS.items():
            print(f"    {name:<13}{purpose:<34}simple-diffusion {example}")
        return 0
    if command == "--version":
        print(f"Simple Diffusion {__version__}")
        return 0
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS) or " (see --help)"
        print(f"simple-diffusion: error: there is no command {command!r}{hint}", file=sys.stderr)
        return 2
    sys.argv[1:] = others
    module = "benchmark.__main__" if command == "benchmark" else command
    return run(import_module(f"diffusion_lib.{module}").main, command)


if __name__ == "__main__":
    sys.exit(main())
