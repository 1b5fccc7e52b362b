"""Many GPU kernels, launched by one call: CUDA graphs.

A training step launches about two thousand kernels, and a sampling step hundreds. Launched one by
one, by Python, a fast GPU waits for them most of the time. Recorded once, they are replayed as one.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from diffusion_lib.compiling import compile_pays, flops, try_to_compile
from diffusion_lib.files import first_line

WARM_UP = 3  # calls before recording, in which memory and algorithms are chosen
RECORDING_PAYS = 30  # calls, from which on recording takes less time than it saves

Recorded = tuple[Callable[[], None], Tensor]


def record(run: Callable[[], Tensor]) -> Recorded:
    """Record what a call does on the GPU, without doing it.

    Returns:
        A function that does it, and the tensor that it writes the result to.
    """
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on: one gathers the next batch.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = run()
    return graph.replay, result


class Graphed:
    """A function of tensors, of which the GPU's work is replayed from the fourth call on.

    Args:
        function: whatever changes from call to call it reads from its inputs, or from tensors that
            are changed in place; and it never waits for the GPU.
        otherwise: is called where inputs have other shapes than those that were recorded.
        reset: is called when recording failed halfway through the function.
        record: see `record`.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        otherwise: Callable[..., Tensor] | None = None,
        reset: Callable[[], None] = lambda: None,
        record: Callable[[Callable[[], Tensor]], Recorded] = record,
    ):
        self.function, self.otherwise = function, otherwise or function
        self.reset, self.record = reset, record
        self.calls = 0
        self.inputs: list[Tensor] | None = None  # where a replay reads
        self.replay: Callable[[], None] | None = None
        self.result: Tensor | None = None  # where a replay writes

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self.inputs is None:
            self.inputs = [torch.empty_like(values) for values in inputs]
            self.with_gradient = torch.is_grad_enabled()
        if not self.fits(inputs):
            return self.otherwise(*inputs)
        self.calls += 1
        if self.calls == WARM_UP + 1:
            self.try_to_record()
        if self.replay is None:
            return self.function(*inputs)
        for place, values in zip(self.inputs, inputs, strict=True):
            place.copy_(values)
        self.replay()
        return self.result.clone()

    def fits(self, inputs: tuple[Tensor, ...]) -> bool:
        """Whether these inputs can stand in for those that were recorded."""

        def kind(values: Tensor) -> tuple:
            return values.shape, values.dtype, values.device, values.requires_grad

        recorded = list(map(kind, self.inputs)) == list(map(kind, inputs))
        return recorded and self.with_gradient == torch.is_grad_enabled()

    def try_to_record(self) -> None:
        """Record the function, or leave it as it is, with a warning, where that fails."""
        try:
            self.replay, self.result = self.record(partial(self.function, *self.inputs))
        except Exception as error:
            self.reset()
            warnings.warn(
                f"a CUDA graph cannot be recorded here, so it goes on without it, more slowly "
                f"({first_line(error)})",
                stacklevel=3,
            )


@contextmanager
def replayed(model: nn.Module, x_t: Tensor, labels: Tensor | None, calls: int) -> Iterator[None]:
    """In here a GPU computes a model's predictions without gradient faster.

    model: a GaussianDiffusion; another model is left alone.
    x_t, labels: an example of what it is called with; other shapes work as they always do.
    calls: how many there will be. If that is very many, its network is compiled first.
    """
    known = hasattr(model, "network") and x_t.device.type == "cuda"
    if not known or calls < RECORDING_PAYS:
        yield
        return
    network, usual = model.network, model.network._compiled_call_impl
    forward_passes = calls * len(x_t)
    if compile_pays("auto", x_t.device, lambda: forward_passes * flops(network, x_t.shape[1:])):
        with torch.no_grad():
            try_to_compile(network, lambda: model(x_t, 0, labels))
    function = network._compiled_call_impl or network._call_impl
    network._compiled_call_impl = Graphed(function, otherwise=network._call_impl)
    try:
        yield
    finally:
        network._compiled_call_impl = usual
