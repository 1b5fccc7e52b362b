"""When a network is compiled, what happens where that fails, and how the wait for it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from helpers import make_images
from torch import Tensor, nn

from diffusion_lib import GaussianDiffusion, NoiseSchedule
from diffusion_lib.compiling import (
    COMPILING_PAYS,
    Interrupted,
    compile_pays,
    interrupt_wait,
    try_to_compile,
    waiting,
)
from diffusion_lib.networks.layers import GroupNorm, Upsample

CPU, MPS = torch.device("cpu"), torch.device("mps")


@pytest.mark.parametrize("operations", [1, COMPILING_PAYS])
def test_the_choice_to_compile_or_not_holds_on_every_device(gpu, operations):
    for device in (CPU, MPS, gpu(6, 1), gpu(8, 6)):
        assert compile_pays("on", device, lambda: operations)
        assert not compile_pays("off", device, lambda: operations)


@pytest.mark.parametrize("capability, able", [((6, 1), False), ((7, 0), True), ((8, 6), True)])
def test_auto_compiles_long_runs_on_a_gpu_that_can(gpu, capability, able):
    device = gpu(*capability)
    assert not compile_pays("auto", device, lambda: 0.99 * COMPILING_PAYS)
    assert compile_pays("auto", device, lambda: COMPILING_PAYS) == able


@pytest.mark.parametrize("device", [CPU, MPS], ids=str)
def test_auto_compiles_nothing_on_what_is_no_gpu_of_nvidia(device):
    assert not compile_pays("auto", device, lambda: 10 * COMPILING_PAYS)


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


def failing_with(error: BaseException) -> Callable[[Tensor], None]:
    def fail(_):
        raise error

    return fail


@pytest.fixture
def model() -> GaussianDiffusion:
    return GaussianDiffusion(Network(), NoiseSchedule(), "v")


def attempt(model: GaussianDiffusion) -> str | None:
    """What `try_to_compile` returns."""

    def both_passes() -> str:
        model(torch.ones(4, 3), 5).sum().backward()
        return "done"

    return try_to_compile(model.network, both_passes)


def test_a_network_is_compiled_in_place_for_both_passes(monkeypatch, model):
    passes = []
    asked = compile_with(monkeypatch, passes.append)
    assert attempt(model) == "done"
    assert len(asked) == 1 and len(passes) == 1
    model(torch.randn(4, 3), 5).sum().backward()  # from now on
    assert len(passes) == 2
    assert list(model.network.state_dict()) == ["layer.weight", "layer.bias"]  # as before


def test_a_network_whose_backward_pass_cannot_be_compiled_stays_as_it_is(monkeypatch, model):
    compile_with(monkeypatch, failing_with(ModuleNotFoundError()))
    with pytest.warns(UserWarning, match=r"more slowly \(ModuleNotFoundError\); --compile off"):
        assert attempt(model) is None
    model(torch.ones(4, 3), 5).sum().backward()  # does not fail


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), Interrupted()])
def test_too_small_a_memory_or_a_signal_is_not_taken_for_a_missing_compiler(
    monkeypatch, model, error
):
    compile_with(monkeypatch, failing_with(error))
    with pytest.raises(type(error)):
        attempt(model)
    model(torch.ones(4, 3), 5).sum().backward()  # does not fail


def test_a_wait_says_what_for_and_can_be_interrupted(capsys):
    interrupt_wait()  # nothing is waited for
    with pytest.raises(Interrupted), waiting("the compiler"):
        time.sleep(1.2)
        interrupt_wait()
    assert "the compiler: 00:01" in capsys.readouterr().err
    interrupt_wait()


def gradients(layer: nn.Module, x: Tensor, weight: Tensor) -> list[Tensor]:
    """What a layer computes, and the gradients of x and of its weights."""
    weights = [x.requires_grad_(), *layer.parameters()]
    y = layer(x)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), weights)]


@pytest.mark.slow
def test_layers_compute_the_same_when_they_are_compiled():
    torch.manual_seed(0)
    norm = GroupNorm(4, 32)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    # a mean far from 0, where the difference of large numbers would be wrong
    x = (torch.randn(3, 32, 8, 8) * 2 + 50).to(memory_format=torch.channels_last)
    weight = torch.randn(3, 32, 8, 8)
    exact = GroupNorm(4, 32).double()
    exact.load_state_dict(norm.state_dict())
    truth = gradients(exact, x.detach().double(), weight.double())
    found = gradients(torch.compile(norm, dynamic=False), x, weight)
    for ours, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3, rtol=1e-4)
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert found[1].is_contiguous(memory_format=torch.channels_last)

    upsample, weight = Upsample(), torch.randn(3, 32, 16, 16)
    usual = gradients(upsample, x, weight)
    found = gradients(torch.compile(upsample, dynamic=False), x, weight)
    assert found[0].equal(usual[0])
    torch.testing.assert_close(found[1], usual[1])
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals to a group of processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_ends_a_run_that_compiles_within_seconds(tmp_path, number):
    make_images(tmp_path / "images")
    arguments = ["mine", "images", "-i8", "-b4", "--compile=on", "--device=cpu", "--disable_images"]
    run = subprocess.Popen(
        [sys.executable, "-m", "diffusion_lib.train", *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "c")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    said = ""
    while "compiling the network" not in said:
        said += run.stderr.read(1) or pytest.fail(said)
    time.sleep(3)  # in the middle of it
    os.killpg(run.pid, number)
    sent = time.monotonic()
    out, err = run.communicate(timeout=60)
    assert time.monotonic() - sent < 20
    assert run.returncode == 0, err
    assert "stopped after step 0" in out and "--resume" in out
    assert (tmp_path / "autosave.pth").is_file() and (tmp_path / "mine.pth").is_file()
