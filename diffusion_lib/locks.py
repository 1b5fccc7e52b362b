"""Locks between processes: the system opens them when a process ends, however it ends."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: there, do not start two runs at once in one place
    fcntl = None


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Only one process at a time runs what is inside.

    path: a folder, or a file, which is made, empty, and stays: if it were removed, one process
        could lock it while another locks its successor.
    wait: whether the others wait.

    Raises:
        BlockingIOError: another process is inside, and this one does not wait.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    place = os.open(path, flags) if fcntl else None
    try:
        if fcntl:
            try:
                fcntl.flock(place, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a disk that has no locks
                    raise
        yield
    finally:
        if fcntl:
            os.close(place)
