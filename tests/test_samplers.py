"""Samplers, on normally distributed data, where each step can be followed exactly."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from gaussians import IdealNetwork
from hypothesis import settings
from torch import nn

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    NoiseSchedule,
    UNet,
    ddim,
    ddpm,
    dpm_solver,
    heun,
    sample,
    toys,
)
from diffusion_lib.config import DEFAULT_STEPS
from diffusion_lib.sampling import SAMPLERS, sample_batches
from diffusion_lib.solvers import dpm_solver_sde
from diffusion_lib.spacing import spaced_timesteps

MU, S = (0.3, -0.5), (0.2, 0.6)
SAMPLES = 20_000
SCHEDULES = ("linear", "cosine", "quadratic", "sigmoid")
EVERY = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
PROPERTY = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def ideal(schedule="linear", timesteps=100, prediction="epsilon", mu=MU, s=S, **image):
    schedule = NoiseSchedule(schedule, timesteps)
    network = IdealNetwork(schedule.betas, mu, s, prediction, **image)
    return GaussianDiffusion(network, schedule, prediction)


def even(timesteps, steps):
    """The timesteps that ddim and ddpm take; they do not depend on the schedule."""
    return spaced_timesteps(NoiseSchedule("cosine", timesteps), steps)


def start(count=SAMPLES, seed=0, shape=(2,)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, dtype=torch.float64, generator=generator)


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def last(steps):
    return list(steps)[-1].x


def assert_moments(samples, mean, std):
    """Within 5 standard errors, of which one in a million is farther out by chance."""
    samples, count = samples.numpy(), len(samples)
    assert (np.abs(samples.mean(axis=0) - mean) < 5 * std / math.sqrt(count)).all()
    assert (np.abs(samples.std(axis=0) - std) < 5 * std / math.sqrt(2 * count)).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 50, 100])
def test_ddim_is_the_exact_map_from_noise_to_sample(schedule, steps):
    diffusion, noise = ideal(schedule), start(20)
    expected = noise.numpy()
    timesteps = even(100, steps)
    for factor, offset, variance in diffusion.network.reverse_steps(timesteps, eta=0):
        expected = factor * expected + offset
        assert variance == 0
    found = last(ddim(diffusion, noise, steps, clip="off"))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_what_the_network_predicts_makes_no_difference(sampler, prediction):
    noise = start(20)
    reference = last(sampler(ideal(), noise, 30, seeded(), clip="off"))
    found = last(sampler(ideal(prediction=prediction), noise, 30, seeded(), clip="off"))
    torch.testing.assert_close(found, reference, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_ddpm_has_exactly_the_moments_of_the_reverse_process(schedule, steps):
    diffusion = ideal(schedule)
    moments = diffusion.network.sampled_moments(even(100, steps), eta=1)
    assert_moments(last(ddpm(diffusion, start(), steps, seeded(), clip="off")), *moments)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 10])
def test_ddim_has_exactly_the_moments_of_its_eta(schedule, steps, eta):
    diffusion = ideal(schedule)
    moments = diffusion.network.sampled_moments(even(100, steps), eta)
    assert_moments(last(ddim(diffusion, start(), steps, seeded(), clip="off", eta=eta)), *moments)


@pytest.mark.parametrize("steps", [1, 5, 100])
@pytest.mark.parametrize("clip", ["off", "static"])
def test_ddim_with_eta_one_is_ddpm(steps, clip):
    # Not only in distribution: with the same noise every step is the same.
    diffusion, noise = ideal("cosine"), start(50)
    for a, b in zip(
        ddim(diffusion, noise, steps, seeded(), clip, eta=1),
        ddpm(diffusion, noise, steps, seeded(), clip),
        strict=True,
    ):
        torch.testing.assert_close(a.x, b.x, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize(("sampler", "eta"), [(ddpm, 1), (ddim, 0)])
def test_many_steps_lead_to_the_data(sampler, eta):
    diffusion = ideal("cosine", timesteps=1000)
    mean, std = diffusion.network.sampled_moments(even(1000, 1000), eta)
    np.testing.assert_allclose(mean, MU, atol=0.01)
    np.testing.assert_allclose(std, S, rtol=0.02)
    assert_moments(last(sampler(diffusion, start(4000), 1000, seeded(), clip="off")), mean, std)


def test_more_steps_come_closer_to_the_data():
    network = ideal("cosine", timesteps=1000).network
    errors = [
        np.abs(network.sampled_moments(even(1000, steps), eta)[1] - S).max()
        for eta in (0, 1)
        for steps in (5, 20, 80, 320)
    ]
    assert errors[:4] == sorted(errors[:4], reverse=True)
    assert errors[4:] == sorted(errors[4:], reverse=True)


@EVERY
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_the_last_step_adds_no_noise(sampler, steps):
    diffusion = ideal(timesteps=20)
    noisy = sampler in (ddpm, ddim, dpm_solver_sde)
    settings = {"eta": 1.0} if sampler is ddim else {}
    runs = [
        list(sampler(diffusion, start(9), steps, seeded(seed), **settings))[-1] for seed in (1, 2)
    ]
    for step in runs:
        torch.testing.assert_close(step.x, step.x0, rtol=1e-10, atol=1e-12)
    assert torch.equal(runs[0].x, runs[1].x) == (steps == 1 or not noisy)


@EVERY
def test_a_step_says_what_the_network_saw(sampler):
    diffusion, x = ideal(timesteps=20), start(9)
    for step in sampler(diffusion, x, 6, seeded(), clip="off"):
        k, c = diffusion.network.guess(step.t)
        np.testing.assert_allclose(step.x0, k * x.numpy() + c, rtol=1e-9, atol=1e-9)
        x = step.x


@EVERY
def test_clipping_keeps_every_guess_between_minus_one_and_one(sampler):
    diffusion = ideal(timesteps=20, mu=(0.9, -3), s=(1, 1))
    noise = start(200)
    clipped = list(sampler(diffusion, noise, generator=seeded()))
    free = list(sampler(diffusion, noise, generator=seeded(), clip="off"))
    assert all(step.x0.abs().max() <= 1 for step in clipped)
    assert clipped[-1].x.abs().max() <= 1 + 1e-9
    assert free[-1].x.abs().max() > 2


@pytest.mark.parametrize("sampler", [ddpm, ddim])
@pytest.mark.parametrize("steps", [None, 1, 2, 7])
def test_timesteps_are_asked_in_order_from_the_last_to_zero(sampler, steps):
    yielded = [step.t for step in sampler(ideal(timesteps=20), start(2), steps)]
    assert yielded == even(20, steps or 20)
    if steps is None:
        assert yielded == list(range(19, -1, -1))


@pytest.mark.parametrize("steps", [0, -1, 101])
def test_a_number_of_steps_that_cannot_be_is_refused(steps):
    with pytest.raises(InputError, match=f"1 to 100, not {steps}"):
        next(ddpm(ideal(), start(2), steps))


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_an_eta_that_cannot_be_is_refused(eta):
    with pytest.raises(InputError, match="eta"):
        next(ddim(ideal(), start(2), eta=eta))


@EVERY
def test_a_run_can_be_stopped_early_and_leaves_gradients_on(sampler):
    diffusion, noise, taken = ideal(timesteps=20), start(2), 0
    for step in sampler(diffusion, noise, steps=20):
        taken += 1
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad
        if step.t == 15:
            break
    assert taken == 5
    assert torch.is_grad_enabled()


@EVERY
def test_the_starting_noise_is_left_as_it_is(sampler):
    noise = start(3)
    before = noise.clone()
    last(sampler(ideal(timesteps=5), noise, generator=seeded()))
    assert torch.equal(noise, before)


def test_ddpm_repeats_with_its_generator_and_only_then():
    diffusion, noise = ideal(timesteps=10), start(20)
    a, b, c = (last(ddpm(diffusion, noise, generator=seeded(seed))) for seed in (5, 5, 6))
    assert torch.equal(a, b)
    assert (a - c).abs().max() > 0.1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (2, 12), (5, 16)])
def test_sample_makes_images_of_any_shape(sampler, channels, size):
    torch.manual_seed(0)
    network = UNet(size, channels, 8, (1, 2), 1)
    nn.init.normal_(network.head[2].weight, std=0.1)
    diffusion = GaussianDiffusion(network, NoiseSchedule("cosine", 10))
    images = sample(diffusion, 3, sampler=sampler, batch_size=2)
    assert images.shape == (3, channels, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert images.std() > 0.05


@pytest.mark.parametrize("sampler", ["dpm_solver", "heun", "ddim"])
def test_samples_without_added_noise_do_not_depend_on_the_batch_size(sampler):
    diffusion = ideal(mu=0.1, s=0.3)
    together = sample(diffusion, 7, sampler=sampler, steps=10, batch_size=64)
    for batch_size in (1, 2, 3, 7):
        found = sample(diffusion, 7, sampler=sampler, steps=10, batch_size=batch_size)
        torch.testing.assert_close(found, together, rtol=1e-5, atol=1e-5)
    fewer = sample(diffusion, 4, sampler=sampler, steps=10)
    torch.testing.assert_close(fewer, together[:4], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides_on_the_samples(sampler):
    diffusion = ideal(mu=0.1, s=0.3)
    a, b, c = (sample(diffusion, 5, sampler=sampler, steps=10, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert (a - c).abs().max() > 0.1
    assert (a[0] - a[1]).abs().max() > 0.1


def test_the_random_numbers_of_others_are_neither_used_nor_changed():
    diffusion = ideal(mu=0.1, s=0.3)
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    a = sample(diffusion, 2, sampler="ddpm", steps=5)
    assert torch.equal(torch.randn(3), expected)
    assert torch.equal(sample(diffusion, 2, sampler="ddpm", steps=5), a)


@pytest.mark.parametrize(("sampler", "eta"), [("ddpm", 1), ("ddim", 0)])
@pytest.mark.parametrize("steps", [2, 10])
def test_sample_has_the_moments_of_its_sampler(sampler, eta, steps):
    diffusion = ideal(mu=0.1, s=0.15, image_size=16)
    mean, std = diffusion.network.sampled_moments(even(100, steps), eta)
    assert abs(mean) + 5 * std < 1  # or clipping would change them
    pixels = sample(diffusion, 80, sampler=sampler, steps=steps).double().flatten()
    assert_moments(pixels, mean, std)


class Recorder(nn.Module):
    """Answers that the image is black, and keeps all it was shown."""

    channels, image_size = 1, 16

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen = []

    def forward(self, x, t):
        self.seen.append((t[0].item(), x))
        return torch.zeros_like(x)


def test_no_noise_is_used_twice():
    schedule, recorder = NoiseSchedule("linear", 4, 0.1, 0.5), Recorder()
    sample(GaussianDiffusion(recorder, schedule, "x0"), 4, sampler="ddpm", batch_size=2)
    noises, before = [], None
    for t, x in recorder.seen:
        if t == 3:
            noises += list(x)
        else:  # take away what the step made of x, and what is left is the noise that it added
            made, variance = schedule.posterior(0 * x, before, torch.full((2,), t + 1))
            noises += list((x - made) / variance.sqrt())
        before = x
    assert len(noises) == 2 * 2 * 4
    alike = torch.corrcoef(torch.stack(noises).flatten(1)) - torch.eye(len(noises))
    assert alike.abs().max() < 6 / math.sqrt(16 * 16)


@pytest.mark.parametrize(
    ("settings", "timesteps", "calls"),
    [
        ({}, 100, 20),
        (dict(sampler="dpm_solver"), 10, 10),
        (dict(sampler="dpm_solver_sde"), 100, 20),
        (dict(sampler="heun"), 100, 19),  # two a step, one for the last
        (dict(sampler="ddim"), 100, 50),
        (dict(sampler="ddim"), 20, 20),
        (dict(sampler="ddpm"), 100, 100),
    ],
)
def test_sample_takes_few_steps_of_a_solver_and_all_of_ddpm(settings, timesteps, calls):
    recorder = Recorder()
    diffusion = GaussianDiffusion(recorder, NoiseSchedule("linear", timesteps), "x0")
    sample(diffusion, 1, **settings)
    assert len(recorder.seen) == calls


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sample_passes_spacing_and_clip_on(sampler):
    diffusion = ideal(timesteps=100, mu=0.1, s=2.0)
    settings = dict(sampler=sampler, steps=5)
    usual, *others = (
        sample(diffusion, 2, **settings, **more)
        for more in ({}, dict(spacing="leading"), dict(clip="dynamic"))
    )
    assert all((usual - other).abs().max() > 1e-3 for other in others)


def test_sample_shows_the_network_no_more_than_a_batch_at_a_time():
    recorder = Recorder()
    diffusion = GaussianDiffusion(recorder, NoiseSchedule("linear", 10), "x0")
    batches = sample_batches(diffusion, 7, steps=1, batch_size=3)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [len(x) for _, x in recorder.seen] == [3, 3, 1]


def test_sample_works_in_evaluation_mode():
    modes = []

    class Mode(Recorder):
        def forward(self, x, t):
            modes.append(self.training)
            return super().forward(x, t)

    diffusion = GaussianDiffusion(Mode(), NoiseSchedule("linear", 10), "x0").train()
    sample(diffusion, 1, steps=2)
    assert modes == [False, False]


@pytest.mark.parametrize(
    "wrong",
    [
        dict(sampler="euler"),
        dict(count=0),
        dict(count=-1),
        dict(batch_size=0),
        dict(steps=0),
        dict(steps=101),
        dict(clip="cut"),
        dict(spacing="even"),
        dict(sampler="ddim", eta=1.5),
    ],
)
def test_sample_refuses_what_cannot_be_in_one_line(wrong):
    with pytest.raises(InputError) as caught:
        sample(ideal(mu=0.1, s=0.3), **{"count": 1, **wrong})
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("sampler", ["ddpm", "heun", "dpm_solver_sde"])
def test_an_eta_for_a_sampler_that_has_none_is_refused_with_those_that_have_it(sampler):
    with pytest.raises(InputError, match=f"^{sampler} has no eta: .* ddim or dpm_solver$"):
        sample(ideal(mu=0.1, s=0.3), 1, sampler, eta=0.5)


@EVERY
def test_steps_of_none_are_the_default_of_the_sampler(sampler):
    diffusion = ideal(timesteps=60, mu=0.1, s=0.3)
    name = sampler.__name__
    assert len(list(sampler(diffusion, start(1), None))) == (DEFAULT_STEPS[name] or 60)
    samples = [sample(diffusion, 1, name, steps) for steps in (None, DEFAULT_STEPS[name] or 60)]
    assert torch.equal(*samples)


# The solvers. For data N(mu, s^2) the differential equation that they follow is solved exactly by
#     x_t = a_t mu + sqrt((a_t^2 s^2 + b_t^2) / (a_T^2 s^2 + b_T^2)) (x_T - a_T mu).


def exact(diffusion, noise, t):
    def moments(t):
        alpha_bar = diffusion.schedule.alpha_bars[t].item()
        mu, s = diffusion.network.mu, diffusion.network.s
        return math.sqrt(alpha_bar) * mu, np.sqrt(alpha_bar * s**2 + 1 - alpha_bar)

    (mean_t, std_t), (mean, std) = moments(t), moments(-1)
    return mean_t + std_t / std * (noise.numpy() - mean)


def order(errors):
    """The power of the number of steps with which errors fall, of one doubling after the other."""
    return [math.log2(a / b) for a, b in pairwise(errors)]


def fine(name):
    """A schedule with so many timesteps that rounding to one of them does not show."""
    if name == "cosine":
        return NoiseSchedule("cosine", 100_000)
    return NoiseSchedule(name, 100_000, 1e-6, 2e-4)


SOLVERS = [(ddim, 1), (dpm_solver, 2), (heun, 2)]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("solver", "expected"), SOLVERS)
def test_a_solver_has_its_order_on_a_gaussian(solver, expected, schedule):
    schedule = fine(schedule)
    network = IdealNetwork(schedule.betas, MU, S, "v")
    diffusion, noise = GaussianDiffusion(network, schedule, "v"), start(20)
    errors = []
    for steps in (20, 40, 80, 160):
        # before the last step, which no solver can do better than the first order
        step = list(solver(diffusion, noise, steps, clip="off", spacing="log_snr"))[-2]
        reached = spaced_timesteps(schedule, steps, "log_snr")[-1]
        errors.append(np.abs(step.x.numpy() - exact(diffusion, noise, reached)).max())
    for found in order(errors)[1:]:
        assert expected - 0.25 < found < expected + 0.6


@pytest.mark.parametrize(("solver", "expected"), SOLVERS)
def test_a_solver_has_its_order_on_a_mixture_of_gaussians(solver, expected):
    means = torch.tensor([[-1.0, 0.2], [0.4, 1.1], [0.9, -1.0]], dtype=torch.float64)
    schedule = fine("linear")
    network = toys.IdealNetwork(toys.GaussianMixture(means, 0.3), schedule)
    diffusion, noise = GaussianDiffusion(network, schedule), start(20)

    def ends(solver, steps):
        return list(solver(diffusion, noise, steps, clip="off", spacing="log_snr"))[-2].x

    truth = ends(heun, 2000)
    errors = [(ends(solver, steps) - truth).abs().mean().item() for steps in (20, 40, 80, 160)]
    assert errors[-1] > 20 * (ends(heun, 1000) - truth).abs().mean().item()  # the truth is finer
    for found in order(errors)[1:]:
        assert expected - 0.25 < found < expected + 0.6


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_solver_begins_as_ddim_and_its_noisy_kin_as_ddpm(schedule):
    diffusion, noise = ideal(schedule), start(20)
    for solver, kin in ((dpm_solver, ddim), (dpm_solver_sde, ddpm)):
        for spacing in ("linspace", "log_snr"):
            settings = dict(clip="off", spacing=spacing)
            a, b = (next(f(diffusion, noise, 7, seeded(), **settings)) for f in (solver, kin))
            torch.testing.assert_close(a.x, b.x, rtol=1e-7, atol=1e-7)


def test_the_noisy_solver_has_the_moments_of_the_data():
    diffusion = ideal("cosine", timesteps=1000)
    found = last(dpm_solver_sde(diffusion, start(), 200, seeded(), clip="off")).numpy()
    np.testing.assert_allclose(found.mean(axis=0), MU, atol=0.02)
    np.testing.assert_allclose(found.std(axis=0), S, rtol=0.03)


def test_the_noisy_solver_comes_closer_than_ddpm_with_as_many_steps():
    diffusion = ideal("cosine", timesteps=1000)
    worst = [
        np.abs(last(f(diffusion, start(), 20, seeded(), clip="off")).numpy().std(axis=0) - S).max()
        for f in (dpm_solver_sde, ddpm)
    ]
    assert worst[0] < worst[1] / 2


@EVERY
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_every_sampler_starts_from_a_schedule_that_leaves_nothing(sampler, steps):
    schedule = NoiseSchedule("linear", 100, zero_terminal_snr=True)
    betas = schedule.betas.clamp(max=1 - 1e-12)  # the network of the test divides by alpha_bar
    diffusion = GaussianDiffusion(IdealNetwork(betas, MU, S, "v"), schedule, "v")
    found = last(sampler(diffusion, start(2000), steps, seeded(), clip="off"))
    assert found.isfinite().all()
    np.testing.assert_allclose(found.mean(0), MU, atol=0.1)


@EVERY
def test_dynamic_clipping_reaches_the_samplers(sampler):
    diffusion = ideal(timesteps=20, mu=0.0, s=3.0)
    for step in sampler(diffusion, start(50, shape=(64,)), 10, seeded(), clip="dynamic"):
        assert step.x0.abs().max() <= 1
        # one in 200 is cut off, and not one in three as by plain clipping
        assert (step.x0.abs() == 1).double().mean() < 0.05
