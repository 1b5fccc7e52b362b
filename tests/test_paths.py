"""One model, every view: all predictions, all paths from images to noise, and all samplers agree.

Data with a known density: a Gaussian, on which every sampler can be followed, and a mixture.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    NoiseSchedule,
    ddim,
    ddpm,
    dpm_solver,
    heun,
    load_images,
    sample,
    toys,
)
from diffusion_lib.batches import TIMESTEP_SAMPLING
from diffusion_lib.config import BUNDLED, PREDICTIONS
from diffusion_lib.images.pixels import to_images
from diffusion_lib.likelihood import log_likelihood
from diffusion_lib.paths import OnPath
from diffusion_lib.sampling import SAMPLERS
from diffusion_lib.views import Views

MEANS = torch.tensor([[-1.0, 0.2], [0.4, 1.1], [0.9, -1.0]], dtype=torch.float64)
MIXTURE = toys.GaussianMixture(MEANS, 0.3)
GAUSSIAN = toys.GaussianMixture(torch.tensor([[0.3, -0.5]], dtype=torch.float64), 0.4)
PATHS = {
    "linear": dict(name="linear"),
    "straight": dict(name="straight"),
    "cosine, straightened": dict(name="cosine", path="straight"),
    "straight, variance preserving": dict(name="straight", path="variance_preserving"),
}
EVERY_PATH = pytest.mark.parametrize("path", PATHS)
EVERY_PREDICTION = pytest.mark.parametrize("prediction", PREDICTIONS)
# On a path that ends in pure noise, a network cannot predict epsilon.
EVERY_VIEW = pytest.mark.parametrize(
    ("path", "prediction"),
    [(p, q) for p in PATHS for q in PREDICTIONS if q != "epsilon" or "straight" not in p[:8]],
)


def ideal(path, timesteps=1000, prediction="velocity", data=MIXTURE):
    ends = dict(beta_start=0.1 / timesteps, beta_end=20 / timesteps)
    schedule = NoiseSchedule(**PATHS[path], timesteps=timesteps, **ends)
    network = toys.IdealNetwork(data, schedule, prediction)
    return GaussianDiffusion(network, schedule, prediction)


def normal(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, dtype=torch.float64, generator=generator)


def last(steps):
    *_, step = steps
    return step.x


# Paths


def test_the_straight_path_is_a_straight_line_from_the_image_to_noise():
    schedule = NoiseSchedule("straight", 50)
    x0, noise = normal(2)
    for t in range(-1, 50):
        u = (t + 1) / 50
        found = schedule.add_noise(x0, t, noise)
        torch.testing.assert_close(found, (1 - u) * x0 + u * noise, rtol=0, atol=1e-12)
    assert schedule.signal(49) == 0 and schedule.sigma(49) == 1
    assert schedule.signal(-1) == 1 and schedule.sigma(-1) == 0


@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_a_shift_of_the_straight_path_is_that_of_esser_et_al(shift):
    """Equation 23 of arXiv 2403.03206: u' = shift u / (1 + (shift - 1) u)."""
    u = torch.arange(1, 41, dtype=torch.float64) / 40
    sigma = NoiseSchedule("straight", 40, shift=shift).sigma(torch.arange(40))
    torch.testing.assert_close(sigma, shift * u / (1 + (shift - 1) * u), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["linear", "cosine", "straight"])
def test_a_path_changes_the_scale_and_not_the_noise_level(name):
    t = torch.arange(100)
    preserving = NoiseSchedule(name, 100, path="variance_preserving")
    straight = NoiseSchedule(name, 100, path="straight")
    assert torch.equal(preserving.log_snr, straight.log_snr)
    one = torch.ones(100, dtype=torch.float64)
    for schedule, power in ((preserving, 2), (straight, 1)):
        total = schedule.signal(t) ** power + schedule.sigma(t) ** power
        torch.testing.assert_close(total, one, rtol=1e-12, atol=0)
        torch.testing.assert_close(
            2 * (schedule.signal(t) / schedule.sigma(t)).log(), schedule.log_snr
        )


def test_a_path_that_is_none_is_refused():
    with pytest.raises(InputError, match="path must be one of auto, variance_preserving, straight"):
        NoiseSchedule("linear", 10, path="curved")


def test_zero_terminal_snr_leaves_the_straight_path_as_it_is():
    plain, rescaled = (NoiseSchedule("straight", 30, zero_terminal_snr=z) for z in (False, True))
    torch.testing.assert_close(plain.alpha_bars, rescaled.alpha_bars, rtol=1e-12, atol=0)


# The dictionary


@pytest.mark.parametrize("path", ["straight", "straight, variance preserving"])
def test_epsilon_is_refused_where_the_path_ends_in_pure_noise(path):
    with pytest.raises(InputError, match=r"straight.*epsilon.*velocity"):
        ideal(path, prediction="epsilon")


@EVERY_VIEW
def test_whatever_is_predicted_all_views_are_the_same(path, prediction):
    for t in (0, 10, 500, 998):
        x_t = normal(20)
        found = ideal(path, prediction=prediction).views(x_t, t)
        for name, a, b in zip(Views._fields, found, ideal(path).views(x_t, t), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7, msg=name)


@EVERY_PATH
def test_the_score_is_the_gradient_of_the_log_density(path):
    diffusion = ideal(path)
    t = torch.tensor([0, 3, 100, 500, 900, 999])
    x_t = normal(6).requires_grad_()
    signal, sigma = diffusion.schedule.signal(t, x_t), diffusion.schedule.sigma(t, x_t)
    log_density = MIXTURE.log_density(x_t, signal, sigma).sum()
    (gradient,) = torch.autograd.grad(log_density, x_t)
    found = diffusion.views(x_t.detach(), t).score
    torch.testing.assert_close(found, gradient, rtol=1e-7, atol=1e-7)


class Fixed(torch.nn.Module):
    """A network that always answers the same."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x_t, t):
        return self.answer


@pytest.mark.parametrize("name", BUNDLED)
@EVERY_PREDICTION
def test_the_views_of_the_bundled_models_lead_back_to_each_other(name, prediction):
    """Each form of a prediction, taken for a network's, gives all others: to 1e-5."""
    diffusion = GaussianDiffusion.load(name)
    size = diffusion.image_shape[-1]
    x0 = to_images(load_images(name, size))[:2]
    for t in (20, 200, 500, 800):
        x_t = diffusion.schedule.add_noise(x0, t, torch.randn_like(x0))
        with torch.no_grad():
            views = diffusion.views(x_t, t)
        again = GaussianDiffusion(
            Fixed(getattr(views, prediction)), diffusion.schedule, prediction
        ).views(x_t, t)
        for found, expected in zip(again, views, strict=True):
            scale = expected.abs().max().clamp(min=1)
            assert (found - expected).abs().max() < 1e-5 * scale


def test_v_is_what_the_network_of_edm_predicts_for_data_of_variance_one():
    """Equation 7 and table 1 of Karras et al. 2022, with sigma_data = 1, up to the sign."""
    diffusion = ideal("linear")
    for t in (3, 300, 700):
        sigma = diffusion.schedule.sigma(t) / diffusion.schedule.signal(t)
        x = normal(10) * math.hypot(1, sigma)  # x_0 + sigma epsilon
        c_skip, c_out, c_in = (
            1 / (sigma**2 + 1),
            sigma / math.hypot(1, sigma),
            1 / math.hypot(1, sigma),
        )
        views = diffusion.views(c_in * x, t)
        torch.testing.assert_close(c_skip * x + c_out * -views.v, views.x0, rtol=1e-6, atol=1e-6)


# One model along several paths


@pytest.mark.parametrize("sampler", [ddim, dpm_solver, heun])
def test_a_bundled_model_draws_the_same_along_the_straight_path(sampler):
    diffusion = GaussianDiffusion.load("faces")
    straight = replace(diffusion.schedule, path="straight")
    noise = torch.randn(2, *diffusion.image_shape)
    expected = last(sampler(diffusion, noise, 10))
    scale = straight.signal(999) + straight.sigma(999)
    assert scale == 1
    factor = 1 / math.hypot(diffusion.schedule.signal(999), diffusion.schedule.sigma(999))
    start = noise * factor * math.hypot(straight.signal(999), straight.sigma(999))
    found = last(sampler(OnPath(diffusion, straight), start, 10))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    back = OnPath(OnPath(diffusion, straight), diffusion.schedule)
    torch.testing.assert_close(last(sampler(back, noise, 10)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", [ddpm, dpm_solver])
def test_with_added_noise_the_steps_on_two_paths_are_the_same_too(sampler):
    noisy = {"eta": 1.0} if sampler is dpm_solver else {}
    ends = []
    for path in ("variance_preserving", "straight"):
        schedule = NoiseSchedule("straight", 100, path=path)
        diffusion = OnPath(ideal("straight", 100), schedule)
        generator = torch.Generator().manual_seed(1)
        ends.append(last(sampler(diffusion, normal(20), 30, generator, clip="off", **noisy)))
    torch.testing.assert_close(*ends, rtol=1e-7, atol=1e-7)


def test_a_model_on_a_path_is_sampled_like_any_other():
    diffusion = GaussianDiffusion.load("digits")
    straight = OnPath(diffusion, replace(diffusion.schedule, path="straight"))
    images = sample(straight, 2, steps=4)
    assert images.shape == (2, *diffusion.image_shape)
    torch.testing.assert_close(images, sample(diffusion, 2, steps=4), rtol=0, atol=2e-3)


def test_a_model_on_a_path_with_other_noise_levels_is_asked_at_the_nearest():
    diffusion, schedule = ideal("linear", 100), NoiseSchedule("straight", 40)
    on_path = OnPath(diffusion, schedule)
    for t, own in enumerate(on_path.timesteps):
        distances = (diffusion.schedule.log_snr - schedule.log_snr[t].clamp(min=-1e9)).abs()
        assert distances[own] == distances.min()
    many = OnPath(ideal("cosine, straightened", 4000), NoiseSchedule("straight", 1000))
    ends = [last(ddim(d, normal(50), 1000, clip="off")) for d in (ideal("straight"), many)]
    assert (ends[0] - ends[1]).abs().mean() < 0.02


# Samplers


def moments(path):
    """Mean and standard deviation of x_T."""
    schedule = NoiseSchedule(**PATHS[path])
    signal, sigma = schedule.signal(999), schedule.sigma(999)
    return signal * GAUSSIAN.means[0], math.hypot(signal * GAUSSIAN.std, sigma)


@EVERY_VIEW
@pytest.mark.parametrize("name", ["ddim", "dpm_solver", "heun"])
def test_without_added_noise_every_sampler_follows_the_ode_of_a_gaussian(path, prediction, name):
    diffusion = ideal(path, prediction=prediction, data=GAUSSIAN)
    mean, std = moments(path)
    expected = GAUSSIAN.means[0] + GAUSSIAN.std / std * (normal(20) - mean)
    steps = 400 if name == "ddim" else 200
    found = last(SAMPLERS[name](diffusion, normal(20), steps, clip="off"))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 if name == "ddim" else 0.005)


@EVERY_PATH
@pytest.mark.parametrize("name", ["ddpm", "dpm_solver_sde"])
def test_with_added_noise_every_sampler_has_the_moments_of_a_gaussian(path, name):
    diffusion = ideal(path, data=GAUSSIAN)
    generator = torch.Generator().manual_seed(1)
    found = last(SAMPLERS[name](diffusion, normal(20_000), 200, generator, clip="off"))
    mean, std = found.mean(0), found.std(0)
    torch.testing.assert_close(mean, GAUSSIAN.means[0], rtol=0, atol=0.015)
    torch.testing.assert_close(std, std * 0 + GAUSSIAN.std, rtol=0.04, atol=0)


@EVERY_PATH
@pytest.mark.parametrize(("solver", "order"), [(ddim, 1), (dpm_solver, 2), (heun, 2)])
def test_every_solver_has_its_order_on_every_path(path, solver, order):
    diffusion = ideal(path, timesteps=100_000)

    def end(sampler, steps):
        return list(sampler(diffusion, normal(20), steps, clip="off", spacing="log_snr"))[-2].x

    truth = end(heun, 1000)
    errors = [(end(solver, steps) - truth).abs().mean().item() for steps in (40, 80, 160)]
    for larger, smaller in pairwise(errors):
        assert order - 0.25 < math.log2(larger / smaller) < order + 0.8


@EVERY_PATH
def test_a_step_of_ddim_is_a_step_of_euler_in_the_time_of_edm_and_of_the_straight_path(path):
    diffusion = ideal(path)
    schedule, x, t, s = diffusion.schedule, normal(20), 700, 500
    views = diffusion.views(x, t)
    a, b, a_s, b_s = schedule.signal(t), schedule.sigma(t), schedule.signal(s), schedule.sigma(s)
    # EDM: y = x / signal, dy / d(sigma / signal) = (y - x_0) / (sigma / signal)
    y = x / a
    edm = a_s * (y + (b_s / a_s - b / a) * (y - views.x0) / (b / a))
    # the straight path: z = x / (signal + sigma), dz / du = epsilon - x_0
    straight = x / (a + b) + (b_s / (a_s + b_s) - b / (a + b)) * views.velocity
    expected = a_s * views.x0 + b_s * views.epsilon
    torch.testing.assert_close(edm, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((a_s + b_s) * straight, expected, rtol=1e-9, atol=1e-9)


def test_a_short_step_of_the_reverse_sde_is_one_of_ddpm():
    """Euler-Maruyama, with beta_t = g^2 dt: x + beta x / 2 + beta score, and noise of variance
    beta. The mean differs from the posterior's by terms of beta^2.
    """
    diffusion = ideal("linear")
    schedule, x = diffusion.schedule, normal(20)
    for t in (200, 500):
        beta = schedule.betas[t].item()
        views = diffusion.views(x, t)
        mean, variance = schedule.posterior(views.x0, x, t)
        euler = x + beta * x / 2 + beta * views.score
        assert (euler - mean).abs().max() < 3 * beta**2 * views.score.abs().max().clamp(min=1)
        assert variance == pytest.approx(beta, rel=0.05)


@pytest.mark.slow
def test_the_reverse_sde_and_the_ode_have_the_marginals_of_the_forward_process():
    """At five noise levels on the way: means over 20,000 points of functions of a point."""
    count, diffusion = 20_000, ideal("linear")
    functions = [lambda x: x, lambda x: x**2, lambda x: (2 * x).sin(), lambda x: (3 * x).cos()]
    data = MIXTURE.sample(count, torch.Generator().manual_seed(5))[0]
    for sampler in (ddpm, ddim):
        generator = torch.Generator().manual_seed(1)
        for step in sampler(diffusion, normal(count), 1000, generator, clip="off"):
            s = step.t - 1
            if s not in (800, 500, 300, 100, 0):
                continue
            expected = diffusion.schedule.add_noise(data, s, normal(count, seed=s + 7))
            for function in functions:
                a, b = function(step.x), function(expected)
                error = ((a.var(0) + b.var(0)) / count).sqrt()
                assert ((a.mean(0) - b.mean(0)).abs() < 5 * error + 0.005).all()


# Likelihood


@EVERY_PATH
def test_the_likelihood_by_the_ode_is_the_density(path):
    diffusion = ideal(path)
    data, _ = MIXTURE.sample(50, torch.Generator().manual_seed(3))
    signal, sigma = diffusion.schedule.signal(0), diffusion.schedule.sigma(0)
    expected = MIXTURE.log_density(data, signal, sigma)
    found = log_likelihood(diffusion, data, 100)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
    assert torch.is_grad_enabled() and not found.requires_grad


# Timesteps in training


def test_uniform_timesteps_are_those_of_randint():
    a, b = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    found = TIMESTEP_SAMPLING["uniform"](50, (1000,), generator=a)
    assert torch.equal(found, torch.randint(50, (1000,), generator=b))


def test_the_logits_of_logit_normal_timesteps_are_normal():
    generator = torch.Generator().manual_seed(0)
    t = TIMESTEP_SAMPLING["logit_normal"](10_000, (20_000,), generator=generator)
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() < 10_000
    logits = ((t.double() + 0.5) / 10_000).logit()
    assert abs(logits.mean()) < 5 / math.sqrt(20_000)
    assert abs(logits.std() - 1) < 5 / math.sqrt(40_000)


def test_logit_normal_timesteps_come_from_the_middle_more_often():
    generator = torch.Generator().manual_seed(0)
    t = TIMESTEP_SAMPLING["logit_normal"](10, (5000,), generator=generator)
    counts = t.bincount(minlength=10)
    assert counts[4:6].min() > 3 * counts[[0, 9]].max() > 0
