"""The one kind of error that a user can fix."""


class InputError(ValueError):
    """What was given cannot be used. The message is one line: what is wrong, where, what to do.

    The command lines print it and exit with status 2; a notebook shows it as it is.
    """
