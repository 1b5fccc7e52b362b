"""The one kind of error that a user can fix."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """What was given cannot be used. The message is one line: what is wrong, where, what to do.

    The command lines print it and exit with status 2; a notebook shows it as it is.
    """


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, if any is near."""
    near = get_close_matches(wrong, known, n=1)
    return f": did you mean {near[0]}?" if near else ""
