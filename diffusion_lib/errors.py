"""The one kind of error that a user can fix."""

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class InputError(ValueError):
    """What was given cannot be used. The message is one line: what is wrong, where, what to do.

    The command lines print it and exit with status 2; a notebook shows it as it is. Line breaks of
    a value that it quotes, such as a tensor, become spaces.
    """

    def __init__(self, message: str = ""):
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device or of the machine was too small, in whose words ever."""
    if isinstance(error, RuntimeError):  # PyTorch's, which differ from device to device
        return re.search("out of memory|allocate memory|not enough memory", str(error)) is not None
    return isinstance(error, MemoryError)


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, if any is near."""
    near = get_close_matches(wrong, known, n=1)
    return f": did you mean {near[0]}?" if near else ""


def did_you_mean_path(wrong: Path, pattern: str = "*", more: Iterable[str] = ()) -> str:
    """The same for a path that does not exist: the nearest name in the last folder that does.

    pattern: of the names to choose from, if only the last part of the path is wrong.
    more: other names for it.
    """
    folder = wrong.parent
    while not folder.is_dir() and folder != folder.parent:
        wrong, folder, pattern, more = folder, folder.parent, "*", ()
    if not os.access(folder, os.R_OK):
        return ""
    names = [path.name for path in folder.glob(pattern) if not path.name.startswith(".")]
    near = get_close_matches(wrong.name, [*more, *names], n=1)
    if not near:
        return ""
    return f": did you mean {near[0] if near[0] in more else folder / near[0]}?"
