"""Compiling a network (torch.compile): when it pays, and how it can be waited for.

It takes a minute or more, so it says that it is at work, and Ctrl-C or SIGTERM end it at once.
"""

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from diffusion_lib.files import first_line

Result = TypeVar("Result")

# Operations in the forward passes of a run, from which on compiling takes less time than it saves:
# some three minutes of an H100 that computes what is not compiled.
COMPILING_PAYS = 3e15
OPERATIONS_A_MINUTE = COMPILING_PAYS / 3
STOPPING = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """A signal has ended the wait for the compiler, which catches every Exception."""


def flops(network: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Floating-point operations of a forward pass of one image: two for each multiply-add of
    convolutions and matrix products. The others are few beside these.
    """
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *image_shape, device=device), torch.zeros(1, device=device))
    return counter.get_total_flops()


def compile_pays(choice: str, device: torch.device, operations: Callable[[], float]) -> bool:
    """Whether to compile the network: "on", "off", or "auto", on a GPU that can, if it pays.

    operations: returns the floating-point operations of all forward passes to come.
    """
    if choice != "auto":
        return choice == "on"
    able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)
    return able and operations() >= COMPILING_PAYS


def try_to_compile(network: nn.Module, attempt: Callable[[], Result]) -> Result | None:
    """Compile a network in place, or leave it as it is, with a warning, where that fails.

    attempt: calls the network with inputs as they will be, and backward if it is to be trained:
        that is when it is compiled. Inputs of other shapes would be compiled again.

    Returns:
        What `attempt` returned, or None if it failed.

    Raises:
        Interrupted: a signal came. The network is left as it was.
    """
    start_workers()
    network.compile(dynamic=False)
    compiled = False
    try:
        with waiting("compiling the network, which takes a minute or two"):
            result = attempt()
        compiled = True
        return result
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a missing compiler leads to
        warnings.warn(
            f"torch.compile does not work here, so it goes on without it, more slowly "
            f"({first_line(error)}); --compile off skips the attempt",
            stacklevel=2,
        )
        return None
    finally:
        if not compiled:
            network._compiled_call_impl = None  # as if `compile` had never been called


def start_workers() -> None:
    """Start the processes that compile for PyTorch, such that Ctrl-C and SIGTERM for the whole
    group of processes do not reach them: else they would die, and this process wait for ever.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "pthread_sigmask"):  # Windows
        return
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)  # children inherit what is blocked
    try:
        with suppress(Exception):  # not part of PyTorch's interface: it may be elsewhere tomorrow
            from torch._inductor.async_compile import AsyncCompile

            AsyncCompile.process_pool()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)


_waits: list[str] = []  # what this process is waiting for


def interrupt_wait() -> None:
    """To be called by a handler of signals. Raises Interrupted if that ends a wait."""
    if _waits:
        raise Interrupted


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A line that says what is waited for, and for how long. `interrupt_wait` ends it."""
    done = threading.Event()
    with tqdm(desc=what, bar_format="{desc}: {elapsed}", leave=False) as line:

        def count_seconds() -> None:
            while not done.wait(1):
                line.refresh()

        thread = threading.Thread(target=count_seconds, daemon=True)
        thread.start()
        _waits.append(what)
        try:
            yield
        finally:
            _waits.clear()
            done.set()
            thread.join()
