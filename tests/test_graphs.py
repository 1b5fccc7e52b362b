"""Recording and replaying, with a recorder in place of CUDA's; and with CUDA's where there is one.

The stand-in does what a graph does: it runs on the same tensors again.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffusion_lib import GaussianDiffusion, NoiseSchedule, TrainConfig, Trainer, build, sample
from diffusion_lib.files import load_checkpoint
from diffusion_lib.graphs import WARM_UP, Graphed, replayed

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of NVIDIA")


def stand_in(run: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Like `graphs.record`, for the CPU: each replay runs the function and writes its result to
    one place.
    """
    place = torch.full((), math.nan)

    def replay() -> None:
        place.resize_(0)
        result = run()
        place.resize_(result.shape).copy_(result)

    return replay, place


def test_a_replay_sees_new_inputs_and_its_results_stay():
    calls = []

    def double(x: Tensor) -> Tensor:
        calls.append(x.data_ptr())
        return 2 * x

    graphed = Graphed(double, record=stand_in)
    results = [graphed(torch.tensor([float(i)])) for i in range(WARM_UP + 3)]
    assert [float(result) for result in results] == [2.0 * i for i in range(WARM_UP + 3)]
    assert len(set(calls[WARM_UP:])) == 1  # always from the same place


def test_inputs_of_another_kind_are_computed_as_usual():
    graphed = Graphed(lambda x: x + 1, otherwise=lambda x: x + 1000, record=stand_in)
    for _ in range(WARM_UP + 2):
        assert graphed(torch.zeros(4)).tolist() == [1.0] * 4
    assert graphed(torch.zeros(3)).tolist() == [1000.0] * 3
    assert graphed(torch.zeros(4, dtype=torch.float64)).tolist() == [1000.0] * 4
    assert graphed(torch.zeros(4, requires_grad=True)).tolist() == [1000.0] * 4
    with torch.no_grad():
        assert graphed(torch.zeros(4)).tolist() == [1000.0] * 4


def test_where_nothing_can_be_recorded_it_goes_on_with_a_warning():
    resets = []

    def broken(run):
        raise RuntimeError("operation not permitted\nin many lines")

    graphed = Graphed(lambda x: x + 1, reset=lambda: resets.append(1), record=broken)
    for _ in range(WARM_UP):
        graphed(torch.zeros(1))
    with pytest.warns(UserWarning, match=r"without it, more slowly \(operation not permitted\)"):
        assert graphed(torch.zeros(1)).item() == 1
    assert graphed(torch.ones(1)).item() == 2 and resets == [1]


PIXELS = torch.randint(256, (12, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
CONFIG = TrainConfig(
    image_size=8, width=8, batch_size=4, epochs=4, timesteps=50, device="cpu", report_every=1
)


def trained(config: TrainConfig, record: Callable | None = None) -> Trainer:
    trainer = Trainer(build(config, 1), PIXELS, config)
    if record:
        vars(trainer)["fast_descend"] = Graphed(trainer.descend, record=record)
    for _ in trainer:
        pass
    return trainer


@pytest.mark.parametrize(
    "setting", [{}, {"accumulate": 2}, {"flip": True}, {"precision": "float16"}], ids=str
)
def test_a_replayed_run_is_the_run(setting):
    """Everything that a step needs reaches a replay through its inputs or through tensors."""
    config = replace(CONFIG, **setting)
    usual, ours = trained(config), trained(config, stand_in)
    for model in ("diffusion", "average"):
        found, expected = (getattr(t, model).state_dict() for t in (ours, usual))
        assert all(found[name].equal(values) for name, values in expected.items())


# --------------------------------------------------------------------------------------------------
# With a GPU


@on_gpu
@pytest.mark.parametrize(
    "setting",
    [{}, {"accumulate": 2}, {"precision": "float16"}, {"precision": "float32"}, {"min_snr": 5.0}],
    ids=str,
)
def test_a_recorded_run_learns_like_one_that_is_not(setting):
    config = replace(CONFIG, device="cuda", epochs=30, **setting)
    usual, ours = trained(replace(config, compile="off")), trained(config)
    assert isinstance(ours.fast_descend, Graphed) and ours.fast_descend.replay
    assert not isinstance(usual.fast_descend, Graphed)
    assert ours.step == usual.step == 90
    difference = sum(
        (some - other).square().sum()
        for some, other in zip(ours.weights, usual.weights, strict=True)
    )
    start = build(config, 1).to("cuda").parameters()
    moved = sum(
        (some - other).square().sum() for some, other in zip(usual.weights, start, strict=True)
    )
    assert difference < 0.05 * moved


@on_gpu
def test_no_step_waits_for_the_cpu_between_reports():
    config = replace(CONFIG, device="cuda", epochs=20, report_every=10**6)
    trainer = Trainer(build(config, 1), PIXELS, config)
    for _ in range(WARM_UP + 2):
        trainer.train_step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            trainer.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
def test_a_run_goes_on_from_a_checkpoint_on_gpu_and_cpu(tmp_path):
    first = trained(replace(CONFIG, device="cuda"))
    first.save(tmp_path / "run.pth")
    for device in ("cuda", "cpu"):
        config = replace(CONFIG, device=device, epochs=8)
        second = Trainer(build(config, 1), PIXELS, config)
        second.restore(load_checkpoint(tmp_path / "run.pth"))
        reports = list(second)
        assert reports[-1].step == 24 and math.isfinite(reports[-1].loss)
        assert 0 < reports[0].learning_rate < 1e-3


@on_gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_replayed_samples_are_the_samples(precision):
    model = build(replace(CONFIG, device="cuda"), 1).to("cuda").eval()
    nn.init.normal_(model.network.head[2].weight, std=0.02)
    model.precision = precision
    found = sample(model, 10, "ddim", steps=40, batch_size=4)  # the last batch is smaller
    assert model.network._compiled_call_impl is None
    usual = torch.cat([sample(model, 10, "ddim", steps=12, batch_size=4)])  # too few to record
    assert found.shape == usual.shape
    x = torch.randn(4, 1, 8, 8, device="cuda")
    with torch.no_grad():
        expected = [model(x, t) for t in range(40)]
        with replayed(model, x, None, calls=40):
            ours = [model(x, t) for t in range(40)]
    torch.testing.assert_close(torch.stack(ours), torch.stack(expected), atol=1e-2, rtol=1e-2)


def test_on_the_cpu_nothing_is_recorded():
    model = GaussianDiffusion(nn.Identity(), NoiseSchedule(), "v")
    with replayed(model, torch.zeros(1), None, calls=10**6):
        assert model.network._compiled_call_impl is None
