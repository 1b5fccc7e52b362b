"""What holds for every schedule, path, prediction, shape and number of timesteps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from diffusion_lib import GaussianDiffusion, NoiseSchedule, TrainConfig, build
from diffusion_lib.config import PREDICTIONS, SCHEDULES
from diffusion_lib.paths import OnPath
from diffusion_lib.sampling import SAMPLERS, run_sampler, sample

TIMESTEPS = st.one_of(st.integers(2, 30), st.integers(2, 4000))


class Answer(nn.Module):
    """A network that says always the same."""

    def __init__(self, answer: Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.answer


class Bounded(nn.Module):
    """A network whose answers are between -1 and 1, and differ from one timestep to the next."""

    channels, image_size = 2, 2

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return (x + t.view(-1, 1, 1, 1)).sin()


@st.composite
def schedules(draw) -> NoiseSchedule:
    name = draw(st.sampled_from(SCHEDULES))
    return NoiseSchedule(
        name,
        draw(TIMESTEPS),
        beta_end=draw(st.floats(1e-3, 0.02)),
        shift=draw(st.sampled_from([1.0, 0.5, 4.0])),
        zero_terminal_snr=draw(st.booleans()),
        path=draw(st.sampled_from(["auto", "variance_preserving", "straight"])),
    )


def possible(schedule: NoiseSchedule) -> list[str]:
    """What a network can predict with this schedule."""
    nothing_left = schedule.signal(schedule.timesteps - 1) == 0
    return [each for each in PREDICTIONS if each != "epsilon" or not nothing_left]


@settings(max_examples=50)
@given(data=st.data(), schedule=schedules(), seed=st.integers(0, 2**31))
def test_denoising_undoes_the_noise_and_all_views_agree(data, schedule, seed):
    shape = data.draw(st.sampled_from([(3, 2), (2, 1, 4, 4), (1, 3, 2, 5), (4, 7)]))
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    prediction = data.draw(st.sampled_from(possible(schedule)))
    times = data.draw(st.integers(0, schedule.timesteps - 1) | st.just(None))
    generator = torch.Generator().manual_seed(seed)
    x0 = torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1
    noise = torch.randn(shape, generator=generator, dtype=dtype)
    t = (
        torch.randint(schedule.timesteps, shape[:1], generator=generator)
        if times is None
        else times
    )

    diffusion = GaussianDiffusion(Answer(x0), schedule, prediction)
    diffusion.network.answer = diffusion.target(x0, t, noise)
    x_t = schedule.add_noise(x0, t, noise)
    found = diffusion.views(x_t, t)
    signal, sigma = schedule.signal(t, x0), schedule.sigma(t, x0)
    # Rounding, which the small factors of the last and of the first timesteps make larger.
    close = 40 * torch.finfo(dtype).eps
    divided = {"epsilon": (signal, 1), "x0": (1, sigma)}.get(prediction, (1, 1))
    for value, truth, factor in zip((found.x0, found.epsilon), (x0, noise), divided, strict=True):
        assert ((value - truth).abs() * factor <= close * (1 + noise.abs())).all()
    rebuilt = signal * found.x0 + sigma * found.epsilon
    assert ((rebuilt - x_t).abs() <= close * (1 + noise.abs())).all()
    for view, expected in (
        (found.v, signal * found.epsilon - sigma * found.x0),
        (found.velocity, found.epsilon - found.x0),
        (found.score * sigma, -found.epsilon),
    ):
        torch.testing.assert_close(view, expected)


@settings(max_examples=50)
@given(data=st.data(), schedule=schedules())
def test_variances_are_in_their_bounds(data, schedule):
    assert ((schedule.betas > 0) & (schedule.betas <= 1)).all()
    t = data.draw(st.integers(0, schedule.timesteps - 1))
    s = data.draw(st.integers(-1, t - 1))
    assert 0 <= schedule.signal(t) < schedule.signal(s) <= 1
    assert 0 <= schedule.sigma(s) < schedule.sigma(t) <= 1
    x = torch.zeros(1, 2, dtype=torch.float64)
    _, variance = schedule.posterior(x, x, t, s)
    # No wider than the noise at s, nor than what the step from s to t adds.
    factor = schedule.signal(t) / schedule.signal(s)
    added = schedule.sigma(t) ** 2 - (factor * schedule.sigma(s)) ** 2
    assert 0 <= variance <= schedule.sigma(s) ** 2 * (1 + 1e-9)
    assert factor**2 * variance <= added * (1 + 1e-9)


@pytest.mark.parametrize("timesteps", [2, 4000])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_finite_with_two_timesteps_and_with_4000(sampler, schedule, timesteps):
    noise = torch.randn(2, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    steps = min(timesteps, 20)
    for zero in (False, True):
        chosen = NoiseSchedule(schedule, timesteps, zero_terminal_snr=zero)
        for prediction in possible(chosen):
            for clip in ("static", "dynamic", "off"):
                diffusion = GaussianDiffusion(Bounded(), chosen, prediction)
                how = steps, torch.Generator().manual_seed(0), clip, "auto", None
                *_, last = run_sampler(sampler, diffusion, noise, *how)
                assert last.x.isfinite().all()
                assert clip == "off" or last.x.abs().max() <= 1 + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_is_finite_in_4000_steps(sampler, schedule):
    diffusion = GaussianDiffusion(Bounded(), NoiseSchedule(schedule, 4000), "v")
    assert sample(diffusion, 2, sampler, steps=4000).isfinite().all()


@settings(max_examples=10)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=2, unique=True),
    sampler=st.sampled_from(list(SAMPLERS)),
    prediction=st.sampled_from(PREDICTIONS),
    path=st.sampled_from(["auto", "straight"]),
)
def test_an_image_of_a_sampler_without_noise_is_the_same_whichever_batch_it_is_in(
    sizes, sampler, prediction, path
):
    """The noise of the others is drawn for a whole batch: the same batches give the same images."""
    config = TrainConfig(
        image_size=4, width=8, patch=1, blocks=1, timesteps=50, prediction=prediction
    )
    diffusion = build(config, channels=1)
    nn.init.normal_(diffusion.network.head[2].weight, std=0.1)
    along = OnPath(diffusion, NoiseSchedule(config.beta_schedule, 50, path=path))
    one, again, other = (
        sample(along, 5, sampler, steps=4, batch_size=size) for size in (sizes[0], *sizes)
    )
    assert torch.equal(one, again)
    same = torch.allclose(one, other, rtol=1e-4, atol=1e-4)
    assert same == (sampler not in ("dpm_solver_sde", "ddpm"))
    assert math.isfinite(one.sum()) and one.std() > 0.01
