"""Ctrl-C, the stop button of a notebook, SIGTERM and a closed terminal end a run cleanly."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from diffusion_lib import compiling, distributed
from diffusion_lib.training import Trainer

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
SAID = b"\nstopping after this step; once more to stop at once, without saving\n"
SIGNALS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


@contextmanager
def stop_on_signals(trainer: Trainer) -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP end the run cleanly, and a second one act as usual.
    A step ends first; the compiler is not waited for.

    Under torchrun a second one does nothing, because torchrun passes Ctrl-C on to processes that
    have had it already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may change handlers
        return
    usual = {number: signal.getsignal(number) for number in SIGNALS}
    usual = {number: now for number, now in usual.items() if now is not signal.SIG_IGN}  # nohup

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    def stop(*_) -> None:
        trainer.stopping = True
        if distributed.world_size() == 1:
            os.write(2, SAID)  # print may not be called while it is at work
            restore()
            compiling.interrupt_wait()

    for number in usual:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
