"""What a device is good at, also where there is no such device; and what memory a process takes."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from diffusion_lib import GaussianDiffusion, InputError, NoiseSchedule
from diffusion_lib.devices import (
    COMPILING_PAYS,
    compile_pays,
    find_device,
    find_precision,
    try_to_compile,
)

CPU, MPS = torch.device("cpu"), torch.device("mps")


@pytest.fixture
def gpu(monkeypatch) -> Callable[[int, int], torch.device]:
    """gpu(7, 5) is the second GPU here, of compute capability 7.5; nothing else is known of it."""

    def make(*capability: int) -> torch.device:
        known = {torch.device("cuda", 1): capability}
        monkeypatch.setattr(torch.cuda, "get_device_capability", known.__getitem__)
        return torch.device("cuda", 1)

    return make


# Which one (names that are refused: test_training.py)


@pytest.fixture
def every_device(monkeypatch):
    """Tensors can be had on any device, and only the test sets the number of this process."""

    def zeros(_, device):
        return SimpleNamespace(device=torch.device(device), item=lambda: 0.0)

    monkeypatch.setattr(torch, "zeros", zeros)
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(
    "cuda, mps, best",
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_fastest_device_that_there_is(every_device, monkeypatch, cuda, mps, best):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device("auto") == torch.device(best)


@pytest.mark.parametrize(
    "name, found", [("cuda", "cuda:3"), ("auto", "cuda:3"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_under_torchrun_each_process_takes_a_gpu_of_its_own(every_device, monkeypatch, name, found):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert find_device(name) == torch.device(found)


def test_a_gpu_that_a_process_of_torchrun_lacks_is_named(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "99")
    with pytest.raises(InputError, match="device 'cuda:99' cannot be used here"):
        find_device("cuda")


# In which number format


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_named_format_is_taken_on_every_device(gpu, name):
    for device in (CPU, MPS, gpu(6, 1), gpu(8, 6)):
        assert find_precision(name, device) == getattr(torch, name)


@pytest.mark.parametrize("device", [CPU, MPS], ids=str)
def test_auto_is_float32_on_what_is_no_gpu_of_nvidia(device):
    assert find_precision("auto", device) == torch.float32


@pytest.mark.parametrize(
    "capability, expected",
    [
        ((6, 1), torch.float32),  # no tensor cores
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((8, 6), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_auto_is_the_format_that_a_gpu_computes_fast(gpu, capability, expected):
    assert find_precision("auto", gpu(*capability)) == expected


# Compiled or not


@pytest.mark.parametrize("steps", [1, COMPILING_PAYS])
def test_the_choice_to_compile_or_not_holds_on_every_device(gpu, steps):
    for device in (CPU, MPS, gpu(6, 1), gpu(8, 6)):
        assert compile_pays("on", device, steps) and not compile_pays("off", device, steps)


@pytest.mark.parametrize("capability, able", [((6, 1), False), ((7, 0), True), ((8, 6), True)])
def test_auto_compiles_long_runs_on_a_gpu_that_can(gpu, capability, able):
    device = gpu(*capability)
    assert not compile_pays("auto", device, COMPILING_PAYS - 1)
    assert compile_pays("auto", device, COMPILING_PAYS) == able


@pytest.mark.parametrize("device", [CPU, MPS], ids=str)
def test_auto_compiles_nothing_on_what_is_no_gpu_of_nvidia(device):
    assert not compile_pays("auto", device, 10 * COMPILING_PAYS)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layer(x) * t[:, None]


def compile_with(monkeypatch, backward: Callable[[Tensor], None]) -> list[Callable]:
    """Let torch.compile add `backward` to the backward pass. Returns what it was asked to compile,
    a list that grows.
    """
    asked = []

    def compile(function: Callable, **_) -> Callable:
        asked.append(function)

        def compiled(*inputs: Tensor) -> Tensor:
            answer = function(*inputs)
            answer.register_hook(backward)
            return answer

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    return asked


def failing_with(error: Exception) -> Callable[[Tensor], None]:
    def fail(_):
        raise error

    return fail


def attempt() -> tuple[GaussianDiffusion, GaussianDiffusion, list[GaussianDiffusion]]:
    """A model, what `try_to_compile` returned for it, and all that `wrap` returned, in order."""
    model, wrappers = GaussianDiffusion(Network(), NoiseSchedule(), "v"), []

    def wrap() -> GaussianDiffusion:
        wrappers.append(GaussianDiffusion(model.network, model.schedule, "v"))
        return wrappers[-1]

    return model, try_to_compile(model, torch.ones(4, 3), torch.ones(4), wrap), wrappers


def test_a_network_is_compiled_in_place_both_passes_and_no_gradient_is_left(monkeypatch):
    passes = []
    asked = compile_with(monkeypatch, passes.append)
    model, found, wrappers = attempt()
    assert len(asked) == 1 and len(passes) == 1
    assert [found] == wrappers and found.network is model.network
    assert all(weight.grad is None for weight in model.parameters())
    x = torch.randn(4, 3, requires_grad=True)
    model(x, 5).sum().backward()  # the model itself, such as for sampling, is compiled now
    assert len(passes) == 2
    assert list(model.network.state_dict()) == ["layer.weight", "layer.bias"]  # as before


def test_a_network_whose_backward_pass_cannot_be_compiled_stays_as_it_is(monkeypatch):
    compile_with(monkeypatch, failing_with(ModuleNotFoundError()))
    with pytest.warns(UserWarning, match=r"more slowly \(ModuleNotFoundError\); --compile off"):
        model, found, wrappers = attempt()
    assert len(wrappers) == 2 and found is wrappers[-1]
    assert all(weight.grad is None for weight in model.parameters())
    found(torch.ones(4, 3), 5).sum().backward()  # does not fail


def test_too_small_a_memory_is_not_taken_for_a_missing_compiler(monkeypatch):
    compile_with(monkeypatch, failing_with(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        attempt()


# Memory: in processes of their own, because what a process once took counts to its end

TAKES_MEMORY = """
import torch
from diffusion_lib.devices import peak_memory

peaks = [peak_memory(torch.device("cpu"))]
some = torch.ones(peaks[0], dtype=torch.uint8)
peaks.append(peak_memory(torch.device("cpu")))
del some
peaks.append(peak_memory(torch.device("cpu")))
print(peaks)
"""

COUNTS_PAGE_FAULTS = """
import resource, torch
from diffusion_lib.devices import prepare

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        some, other = torch.ones(2**24), torch.ones(2**22)
        del some, other
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = page_faults()
prepare(torch.device("cpu"))
page_faults()  # until there is enough that it keeps
print([usual, page_faults()])
"""


def run(program: str) -> list[int]:
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="memory is not counted here")
def test_peak_memory_grows_with_what_is_taken_and_stays_when_it_is_freed():
    before, taken, freed = run(TAKES_MEMORY)
    # So much was taken as ever was in use before, on top of what is in use anyway.
    # (The system counts in portions: a peak may be some pages off.)
    assert before + 2**26 < taken < 2.2 * before and freed > 0.99 * taken


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_a_prepared_process_does_not_fault_in_again_what_it_freed():
    usual, prepared = run(COUNTS_PAGE_FAULTS)
    assert prepared < usual / 10
