"""What the command lines share: one line for what a user can fix, and exit status 2."""

import argparse
import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import NoReturn

from diffusion_lib.errors import InputError, did_you_mean, out_of_memory
from diffusion_lib.options import Config, flag_of, kind_of

LONGEST_NAME = 200  # bytes: most file systems allow 255, and files get endings


class Parser(argparse.ArgumentParser):
    """Flags may be spelled --batch_size or --batch-size; a wrong one gives one line.

    Flags that are not given are not in the result, which so tells what was chosen.

    examples: commands that stand at the end of --help.
    """

    def __init__(self, examples: Sequence[str] = (), **settings):
        super().__init__(
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,  # one line for each example
            epilog="\n  ".join(["examples:", *examples]) if examples else None,
            **settings,
        )

    def add_options(
        self, config: type[Config], by_recipe: Collection[str] = ()
    ) -> argparse._ArgumentGroup:
        """Add a flag for every field of a configuration. Returns the group of the last one.

        by_recipe: fields whose default depends on the device.
        """
        group = self
        for option in fields(config):
            rule = option.metadata
            if rule["group"]:
                group = self.add_argument_group(rule["group"])
            flags = [*filter(None, [rule["short"]]), f"--{flag_of(option)}"]
            if option.type is bool:
                group.add_argument(*flags, action="store_true", help=rule["help"])
                continue
            kind = kind_of(option)  # where the default is None, the help says what that means
            default = "" if option.default in (None, "") else f" (default: {option.default})"
            if option.name in by_recipe:
                default = " (default: by the recipe)"
            metavar = rule["metavar"] or {int: "N", float: "X", str: "NAME"}[kind]
            if rule["choices"]:  # the configuration checks them
                metavar = f"{{{','.join(rule['choices'])}}}"
            alone = {} if rule["alone"] is None else {"nargs": "?", "const": rule["alone"]}
            help = rule["help"] + default
            how = dict(type=kind, help=help, metavar=metavar, dest=option.name)
            group.add_argument(*flags, **how, **alone)
        return group

    def parse_args(self, arguments: list[str] | None = None) -> argparse.Namespace:
        arguments = sys.argv[1:] if arguments is None else arguments
        chosen, rest = self.parse_known_args([underscored(argument) for argument in arguments])
        for argument in rest:
            flag = argument.partition("=")[0]
            if flag.startswith("-"):
                known = (f for f in self._option_string_actions if f.startswith("--"))
                self.error(f"there is no option {flag}{did_you_mean(flag, known)}")
        if rest:
            self.error(f"more arguments than there are names for: {' '.join(rest)}")
        return chosen

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def underscored(argument: str) -> str:
    """--batch-size=8 -> --batch_size=8; everything else is left unchanged."""
    flag, equals, value = argument[2:].partition("=")
    if not argument.startswith("--") or " " in flag:
        return argument
    return f"--{flag.replace('-', '_')}{equals}{value}"


def check_name(option: str, name: str, folder_option: str) -> None:
    """Raise InputError unless a file can be called so."""
    if Path(name).name != name or name in ("", ".."):
        raise InputError(
            f"{option} must not contain a folder: {name!r}; use {folder_option} for the folder"
        )
    if not name.isprintable():
        raise InputError(f"{option} must not contain line breaks or control characters: {name!r}")
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise InputError(f"{option} must not be longer than {LONGEST_NAME} bytes: {name!r}")


def printable(message: object) -> str:
    """A message in one line: file names may have line breaks, or codes that steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(message))


def in_thread(usual: Callable, failed: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread: the run hears of its error and goes on, see recording.py."""
    if not isinstance(failed.exc_value, OSError):
        usual(failed)


def run(main: Callable[[], None], name: str) -> int:
    """Call main; turn errors of input into one line and status 2, warnings into one line each."""
    for stream in (sys.stdout, sys.stderr):  # a terminal may know ASCII only
        with suppress(AttributeError):  # a notebook's stream knows everything
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: print(
        f"warning: {printable(message)}", file=sys.stderr
    )
    threading.excepthook = partial(in_thread, threading.excepthook)
    try:
        main()
    except InputError as error:
        print(f"{name}: error: {printable(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written to, ...
        where = f" {error.filename}" if error.filename else ""
        message = f"cannot use{where}: {error.strerror or error}"
        print(f"{name}: error: {printable(message)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        advice = "take fewer or smaller images at a time (--batch_size), or close other programs"
        print(f"{name}: error: the memory is too small: {advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 0
