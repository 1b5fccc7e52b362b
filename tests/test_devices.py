"""What a device is good at, also where there is no such device; and what memory a process takes."""

import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from diffusion_lib import InputError, devices
from diffusion_lib.devices import find_device, find_precision

CPU, MPS = torch.device("cpu"), torch.device("mps")


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


@pytest.mark.parametrize("slower, fast", [(0.4, True), (0.9, False), (20.0, False)])
def test_bfloat16_is_fast_where_it_multiplies_faster(monkeypatch, slower, fast):
    """The time of a product, as a clock shows it: the first four are of bfloat16."""
    ticks = (tick for each in [slower] * 4 + [1.0] * 4 for tick in (0.0, each))
    monkeypatch.setattr(devices.time, "thread_time", lambda: next(ticks))
    assert devices.fast_bfloat16() == fast
