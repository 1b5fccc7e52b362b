"""What the command lines share: one line for what a user can fix, and exit status 2."""

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import NoReturn

from diffusion_lib.config import Config
from diffusion_lib.errors import InputError


class Parser(argparse.ArgumentParser):
    """Flags may be spelled --batch_size or --batch-size; a wrong one gives one line.

    Flags that are not given are not in the result, which so tells what was chosen.
    """

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, **settings)

    def add_options(self, config: type[Config]) -> None:
        """Add a flag for every field of a configuration."""
        for option in fields(config):
            rule = option.metadata
            flags = [*filter(None, [rule["short"]]), f"--{option.name}"]
            if option.type is bool:
                self.add_argument(*flags, action="store_true", help=rule["help"])
                continue
            optional = option.default is None  # `int | None`: the help says what None means
            kind = int if optional else option.type
            help = rule["help"] if optional else f"{rule['help']} (default: {option.default})"
            metavar = {int: "N", float: "X", str: "NAME"}[kind]
            form = {"choices": rule["choices"]} if rule["choices"] else {"metavar": metavar}
            self.add_argument(*flags, type=kind, help=help, **form)

    def parse_args(self, arguments: list[str] | None = None) -> argparse.Namespace:
        arguments = sys.argv[1:] if arguments is None else arguments
        return super().parse_args([underscored(argument) for argument in arguments])

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def underscored(argument: str) -> str:
    """--batch-size=8 -> --batch_size=8; everything else is left unchanged."""
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument[2:].partition("=")
    return f"--{flag.replace('-', '_')}{equals}{value}"


def run(main: Callable[[], None], name: str) -> int:
    """Call main; turn errors of input into one line and status 2, warnings into one line each."""
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        main()
    except InputError as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written to, ...
        where = f" {error.filename}" if error.filename else ""
        print(f"{name}: error: cannot use{where}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 0
