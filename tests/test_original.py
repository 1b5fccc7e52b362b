"""The original project's network and files, against their description written with functions."""

import math

import pytest
import torch
import torch.nn.functional as F

from diffusion_lib import GaussianDiffusion, InputError, NoiseSchedule, OriginalUNet, ddim, ddpm


@pytest.fixture
def double():
    """Everything in float64, so that nothing but a different formula makes a difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def described_shapes(size: int) -> dict[str, tuple[int, ...]]:
    """Every tensor in a file of the original, by its description."""
    time = 4 * size

    def layer(name, *weight, bias=None):
        return {f"{name}.weight": weight, f"{name}.bias": (bias or weight[0],)}

    def block(name, came_in, goes_out, enters):
        return {
            **layer(f"{name}.time_mlp", goes_out, time),
            **layer(f"{name}.conv1", goes_out, enters, 3, 3),
            **layer(f"{name}.conv2", goes_out, goes_out, 3, 3),
            **layer(f"{name}.transform", goes_out, goes_out, 4, 4),
            **layer(f"{name}.bnorm1", goes_out),
            **layer(f"{name}.bnorm2", goes_out),
        }

    return {
        **layer("time_mlp.1", time, time),
        **layer("conv0", size, 3, 3, 3),
        **block("downs.0", size, 2 * size, size),
        **block("downs.1", 2 * size, 4 * size, 2 * size),
        **block("downs.2", 4 * size, 8 * size, 4 * size),
        **block("ups.0", 8 * size, 4 * size, 16 * size),
        **block("ups.1", 4 * size, 2 * size, 8 * size),
        **block("ups.2", 2 * size, size, 4 * size),
        **layer("output", 3, size, 1, 1),
    }


def random_weights(size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:])))
        for name, shape in described_shapes(size).items()
    }


def described_network(weights, size, x, t):
    """The network, written with functions only."""

    def conv(name, h, **settings):
        return F.conv2d(h, weights[f"{name}.weight"], weights[f"{name}.bias"], **settings)

    def linear(name, h):
        return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name, h):  # a single group: all channels and pixels of an image together
        mean = h.mean(dim=(1, 2, 3), keepdim=True)
        variance = h.var(dim=(1, 2, 3), unbiased=False, keepdim=True)
        scale, shift = (weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias"))
        return (h - mean) / torch.sqrt(variance + 1e-5) * scale + shift

    def relu(h):
        return h * (h > 0)

    def block(name, h, time, up):
        h = norm(f"{name}.bnorm1", relu(conv(f"{name}.conv1", h, padding=1)))
        h = h + relu(linear(f"{name}.time_mlp", time))[:, :, None, None]
        h = norm(f"{name}.bnorm2", relu(conv(f"{name}.conv2", h, padding=1)))
        name = f"{name}.transform"
        if up:
            weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            return F.conv_transpose2d(h, weight, bias, stride=2, padding=1)
        return conv(name, h, stride=2, padding=1)

    half = 2 * size
    waves = [
        [wave(step * math.exp(-math.log(10000) / (half - 1) * k)) for k in range(half)]
        for step in t.tolist()
        for wave in (math.sin, math.cos)
    ]
    time = relu(linear("time_mlp.1", torch.tensor(waves).view(len(t), 4 * size)))
    h0 = conv("conv0", x, padding=1)
    h1 = block("downs.0", h0, time, up=False)
    h2 = block("downs.1", h1, time, up=False)
    h3 = block("downs.2", h2, time, up=False)
    h = block("ups.0", torch.cat([h3, h3], dim=1), time, up=True)
    h = block("ups.1", torch.cat([h, h2], dim=1), time, up=True)
    h = block("ups.2", torch.cat([h, h1], dim=1), time, up=True)
    return conv("output", h)


def original_file(path, size=8, schedule="linear", timesteps=6):
    """Written as the original wrote it."""
    content = {
        "model_state_dict": random_weights(size),
        "image_size": size,
        "schedule": schedule,
        "timesteps": timesteps,
        "start": 1e-3,
        "end": 0.3,
        "create_images": True,
        "tensorboard": True,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("size", [8, 16])
def test_names_and_shapes_of_the_weights_are_those_of_the_files(size):
    state = OriginalUNet(size).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == described_shapes(size)


@pytest.mark.parametrize("size", [8, 16])
def test_the_network_computes_what_the_description_says(double, size):
    weights = random_weights(size)
    network = OriginalUNet(size)
    network.load_state_dict(weights)
    x, t = torch.randn(3, 3, size, size), torch.tensor([0, 17, 999])
    with torch.no_grad():
        answer = network(x, t)
    assert answer.dtype == torch.float64
    expected = described_network(weights, size, x, t)
    torch.testing.assert_close(answer, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", [0, 4, 12, 100])
def test_a_size_that_cannot_be_halved_three_times_is_refused(size):
    with pytest.raises(InputError, match=f"multiples of 8, not {size}"):
        OriginalUNet(size)


def test_a_file_of_the_original_loads_with_its_weights_and_schedule(tmp_path):
    diffusion = GaussianDiffusion.load(original_file(tmp_path / "brain.pth", schedule="sigmoid"))
    assert diffusion.image_shape == (3, 8, 8)
    assert diffusion.prediction == "epsilon"
    assert not diffusion.training
    assert torch.equal(diffusion.schedule.betas, NoiseSchedule("sigmoid", 6, 1e-3, 0.3).betas)
    state = diffusion.network.state_dict()
    for name, value in random_weights(8).items():
        assert torch.equal(state[name], value)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "quadratic", "sigmoid"])
@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_a_file_of_the_original_makes_images(tmp_path, sampler, schedule):
    diffusion = GaussianDiffusion.load(original_file(tmp_path / "old.pth", schedule=schedule))
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = list(sampler(diffusion, noise))
    assert [step.t for step in steps] == [5, 4, 3, 2, 1, 0]
    assert steps[-1].x.shape == (2, 3, 8, 8)
    assert steps[-1].x.isfinite().all()
    assert steps[-1].x.std() > 0.1


def test_a_file_of_the_original_can_be_saved_anew(tmp_path):
    diffusion = GaussianDiffusion.load(original_file(tmp_path / "old.pth"))
    diffusion.save(tmp_path / "new.pth")
    again = GaussianDiffusion.load(tmp_path / "new.pth")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0, 5])
    with torch.no_grad():
        assert torch.equal(again.network(x, t), diffusion.network(x, t))
    assert torch.equal(again.schedule.betas, diffusion.schedule.betas)


def test_ddpm_without_clipping_is_the_step_of_the_original(double, tmp_path):
    diffusion = GaussianDiffusion.load(original_file(tmp_path / "old.pth", timesteps=10))
    x = noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    weights = random_weights(8)
    betas = torch.linspace(1e-3, 0.3, 10)
    alphas = 1 - betas
    alpha_bars = torch.cumprod(alphas, dim=0)
    generator = torch.Generator().manual_seed(4)

    found = ddpm(diffusion, noise, generator=torch.Generator().manual_seed(4), clip="off")
    for t, step in zip(reversed(range(10)), found, strict=True):
        epsilon = described_network(weights, 8, x, torch.full((2,), t))
        x = (x - betas[t] / (1 - alpha_bars[t]).sqrt() * epsilon) / alphas[t].sqrt()
        if t > 0:
            variance = betas[t] * (1 - alpha_bars[t - 1]) / (1 - alpha_bars[t])
            x = x + variance.sqrt() * torch.randn(x.shape, generator=generator)
        assert step.t == t
        torch.testing.assert_close(step.x, x, rtol=1e-8, atol=1e-8)
