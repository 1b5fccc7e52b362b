"""Distances between sets against closed forms, copies that must be found, and the loss by level."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion_lib import (
    GaussianDiffusion,
    InputError,
    NoiseSchedule,
    UNet,
    load_images,
    metrics,
)
from diffusion_lib import features as eyes
from diffusion_lib.features import FeatureStatistics
from diffusion_lib.images.pixels import to_images, to_pixels
from diffusion_lib.metrics import (
    frechet_distance,
    kernel_distance,
    loss_by_timestep,
    memorization,
    precision_recall,
)
from diffusion_lib.neighbors import nearest


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count: int, seed: int = 0, channels: int = 3, size: int = 4) -> Tensor:
    """Random bytes, shape (count, channels, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def exactly(mean: list[float], covariance: list[list[float]]) -> FeatureStatistics:
    """Statistics of points that have this mean and this covariance: pairs around the mean."""
    mean, covariance = torch.tensor(mean).double(), torch.tensor(covariance).double()
    values, vectors = torch.linalg.eigh(covariance)
    arms = (vectors * values.clamp(min=0).sqrt()).T  # the sum of a a^T over them is the covariance
    arms = arms * ((2 * len(arms) - 1) / 2) ** 0.5
    return FeatureStatistics().add(torch.cat([mean + arms, mean - arms]))


# Statistics


def test_batches_give_what_all_at_once_gives():
    features = 100 + normal(500, 7)  # far from 0, where a sum of squares would lose digits
    statistics = FeatureStatistics()
    for some in features.split([1, 199, 0, 250, 50]):
        statistics.add(some)
    assert statistics.count == 500
    assert torch.allclose(statistics.mean, features.double().mean(dim=0), rtol=1e-12)
    assert torch.allclose(statistics.covariance, torch.cov(features.double().T), rtol=1e-9)
    assert statistics.covariance.dtype == torch.float64
    assert torch.equal(statistics.rows, features)


def test_memory_does_not_grow_with_the_images():
    statistics = FeatureStatistics(keep=10)
    for _ in range(5):
        statistics.add(normal(20, 3))
    assert statistics.rows.shape == (10, 3) and statistics.count == 100


def test_each_image_has_the_same_chance_to_be_kept():
    numbers, times = torch.zeros(40), 400
    for seed in range(times):
        statistics = FeatureStatistics(keep=10, seed=seed)
        for some in torch.arange(40.0)[:, None].split([3, 27, 10]):  # full at 10
            statistics.add(some)
        kept = statistics.rows[:, 0].long()
        assert len(kept.unique()) == 10
        numbers[kept] += 1
    deviation = (times * 0.25 * 0.75) ** 0.5
    assert (numbers - times / 4).abs().max() < 4.5 * deviation


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_features_that_are_not_numbers_are_refused(bad):
    with pytest.raises(InputError, match="not finite"):
        FeatureStatistics().add(torch.tensor([[0.0, bad]]))


def test_features_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"\(N, D\).*\(3,\)"):
        FeatureStatistics().add(torch.zeros(3))
    with pytest.raises(InputError, match=r"\(N, 3\).*\(2, 4\)"):
        FeatureStatistics().add(torch.zeros(2, 3)).add(torch.zeros(2, 4))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_have_no_covariance(count):
    statistics = FeatureStatistics().add(torch.zeros(count, 3))
    with pytest.raises(InputError, match="two images"):
        _ = statistics.covariance


# Frechet distance


def test_frechet_distance_of_gaussians_that_differ_along_their_axes():
    """Where covariances commute: |m_a - m_b|^2 + sum of (sigma_a - sigma_b)^2."""
    a = exactly([0, 0, 0], [[1, 0, 0], [0, 4, 0], [0, 0, 9]])
    b = exactly([1, 2, 0], [[4, 0, 0], [0, 4, 0], [0, 0, 0.25]])
    assert frechet_distance(a, b) == pytest.approx(1 + 4 + 1 + 0 + 2.5**2)


def test_frechet_distance_of_gaussians_that_do_not_commute():
    """Of two by two: (tr (A B)^(1/2))^2 = tr(A B) + 2 det(A B)^(1/2), from its two eigenvalues."""
    a, b = [[2.0, 1.0], [1.0, 3.0]], [[4.0, -1.0], [-1.0, 1.0]]
    product = torch.tensor(a) @ torch.tensor(b)
    assert not torch.allclose(product, product.T)
    # tr(A B) = 8 - 1 - 1 + 3 = 9, det A = 5, det B = 3, tr A + tr B = 10
    expected = 10 - 2 * (9 + 2 * 15**0.5) ** 0.5
    assert frechet_distance(exactly([0, 0], a), exactly([0, 0], b)) == pytest.approx(expected)
    assert frechet_distance(exactly([0, 3], a), exactly([4, 0], b)) == pytest.approx(expected + 25)


def test_frechet_distance_of_fewer_images_than_features():
    """The eigenvalues of C_a C_b are squares of the singular values of A B^T, rows centred."""
    a, b = normal(10, 50, seed=1), 2 * normal(15, 50, seed=2) + 1
    centred = [(x - x.mean(dim=0)).double() / (len(x) - 1) ** 0.5 for x in (a, b)]
    overlap = torch.linalg.svdvals(centred[0] @ centred[1].T).sum()
    expected = (a.double().mean(dim=0) - b.double().mean(dim=0)).square().sum()
    expected += sum(x.square().sum() for x in centred) - 2 * overlap
    found = frechet_distance(FeatureStatistics().add(a), FeatureStatistics().add(b))
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_frechet_distance_is_symmetric_and_0_to_itself():
    a, b = (FeatureStatistics().add(normal(8, 20, seed=seed)) for seed in (1, 2))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert 0 <= frechet_distance(a, a) < 1e-4


def test_frechet_distance_needs_two_images_and_one_kind_of_features():
    two = FeatureStatistics().add(normal(2, 3))
    for few in (FeatureStatistics(), FeatureStatistics().add(normal(1, 3))):
        for pair in ((two, few), (few, two)):
            with pytest.raises(InputError, match="two images"):
                frechet_distance(*pair)
    with pytest.raises(InputError, match="3 and 4"):
        frechet_distance(two, FeatureStatistics().add(normal(2, 4)))


# Kernel distance


def test_kernel_distance_of_a_few_points_by_hand():
    """k(x, y) = (x y + 1)^3. Of 0 and 1: k = 1. Of 1 and 2: k = 27. Across: 1, 1, 8, 27."""
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [2.0]])
    expected = 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4
    assert kernel_distance(a, b, subsets=3).mean == pytest.approx(expected)


def test_kernel_distance_is_0_on_average_between_draws_of_one_kind_however_few():
    unbiased, biased = [], []
    for seed in range(600):
        a, b = normal(5, 4, seed=2 * seed), normal(5, 4, seed=2 * seed + 1)
        unbiased.append(kernel_distance(a, b, subsets=1).mean)
        v_statistic = metrics.kernel(a, a).mean() + metrics.kernel(b, b).mean()
        biased.append((v_statistic - 2 * metrics.kernel(a, b).mean()).item())
    unbiased, biased = torch.tensor(unbiased), torch.tensor(biased)
    error = unbiased.std() / 600**0.5
    assert unbiased.mean().abs() < 3 * error
    assert biased.mean() > 10 * error and unbiased.min() < 0


def test_kernel_distance_between_draws_of_one_kind_is_below_0_more_often_than_not():
    """The estimates are skewed to the right: their mean is 0, and their median below."""
    draws = torch.randn(2000, 2, 20, 2, generator=torch.Generator().manual_seed(2))
    found = torch.tensor([kernel_distance(a, b, 1, 20).mean for a, b in draws])
    assert 0.55 < (found < 0).double().mean() < 0.61 and found.median() < -0.08


def test_kernel_distance_does_not_depend_on_the_number_but_its_standard_deviation_does():
    a, b = normal(2000, 4, seed=1), 1 + normal(2000, 4, seed=2)
    few, many = (kernel_distance(a, b, 100, subset_size=size) for size in (20, 400))
    assert few.mean == pytest.approx(many.mean, abs=4 * few.std / 100**0.5)
    assert few.std > 2 * many.std > 0


def test_kernel_distance_repeats_itself():
    a, b = normal(50, 4, seed=1), normal(50, 4, seed=2)
    first, again, other = (kernel_distance(a, b, 5, 20, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_kernel_distance_needs_two_images_and_one_kind_of_features():
    with pytest.raises(InputError, match="two images"):
        kernel_distance(normal(5, 3), normal(1, 3))
    with pytest.raises(InputError, match="3 and 4"):
        kernel_distance(normal(5, 3), normal(5, 4))


# Precision and recall


def two_clouds(count: int, seed: int) -> Tensor:
    """Points around (0, 0), then as many around (100, 0), shape (2 count, 2)."""
    return normal(2 * count, 2, seed=seed) + torch.tensor([[0.0, 0], [100, 0]]).repeat_interleave(
        count, dim=0
    )


def test_fakes_of_one_kind_only_have_precision_and_no_recall_of_the_other():
    real, fake = two_clouds(200, 1), two_clouds(200, 2)[:200]
    found = precision_recall(real, fake)
    assert found.precision > 0.9 and 0.4 < found.recall <= 0.5


def test_fakes_that_are_some_of_the_reals_have_precision_1_and_less_recall():
    real = two_clouds(100, 1)
    found = precision_recall(real, real[:50])
    assert found.precision == 1 and 0.25 <= found.recall <= 0.5


def test_fakes_of_too_many_kinds_have_recall_and_less_precision():
    real, fake = two_clouds(200, 1)[:200], two_clouds(200, 2)
    found = precision_recall(real, fake)
    assert found.recall > 0.9 and 0.4 < found.precision <= 0.5


def test_a_set_covers_itself_and_nothing_that_is_far():
    real = two_clouds(50, 1)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 1000) == (0, 0)


def test_precision_and_recall_of_points_on_a_line_by_hand():
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    fake = torch.tensor([[-1.5], [2.0], [4.5], [20.0]])
    # Reals reach 1, 1, 1, 8 far: -1.5 lies outside, 2 and 4.5 inside (2..18), 20 outside.
    # Fakes reach 3.5, 2.5, 2.5, 15.5 far: -5..2, -0.5..4.5, 2..7 and 4.5..35.5 hold all reals;
    # without the last fake, 10 is left out.
    assert precision_recall(real, fake, k=1) == (0.5, 1)
    assert precision_recall(real, fake[:3], k=1) == (2 / 3, 0.75)


def test_precision_and_recall_do_not_depend_on_the_chunks():
    real, fake = normal(70, 3, seed=1), 0.7 * normal(50, 3, seed=2)
    assert len({precision_recall(real, fake, chunk_size=size) for size in (1, 7, 50, 1000)}) == 1


def test_precision_and_recall_need_more_than_k_images_and_one_kind_of_features():
    for real, fake in ((3, 9), (9, 3), (0, 9)):
        with pytest.raises(InputError, match=f"{real} and {fake}"):
            precision_recall(normal(real, 2), normal(fake, 2))
    with pytest.raises(InputError, match="at least 1"):
        precision_recall(normal(9, 2), normal(9, 2), k=0)
    with pytest.raises(InputError, match="2 and 3"):
        precision_recall(normal(9, 2), normal(9, 3))


# Nearest images


def test_the_nearest_is_what_comparing_all_pairs_finds():
    images, among = pictures(9, 1), pictures(31, 2)
    differences = to_images(images)[:, None] - to_images(among)[None]
    distances = differences.square().mean(dim=(2, 3, 4)).sqrt()  # (9, 31)
    for chunk_bytes in (1, 4 * 48 * 7, 2**26):
        found = nearest(images, among, chunk_bytes=chunk_bytes)
        assert torch.equal(found.number, distances.argmin(dim=1))
        assert torch.allclose(found.distance, distances.min(dim=1).values)


def test_a_distance_is_a_root_mean_square_on_the_scale_of_images():
    black, white = torch.zeros(1, 3, 4, 4).byte(), torch.full((1, 3, 4, 4), 255).byte()
    assert nearest(black, white).distance.item() == pytest.approx(2)
    half = white.clone()
    half[..., :2] = 0
    assert nearest(black, half).distance.item() == pytest.approx(2 * 0.5**0.5)


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_are_found_and_are_at_distance_0(channels):
    among = pictures(50, 1, channels)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    for copies in (among[order], to_images(among[order])):
        found = nearest(copies, among, chunk_bytes=500)
        assert torch.equal(found.number, order) and found.distance.eq(0).all()


def test_copies_are_told_from_images_that_differ_in_one_pixel_by_one():
    """Where a matrix product alone rounds the difference away."""
    original = pictures(1, size=64)
    twin = original.clone()
    twin[0, 0, 0, 0] ^= 1
    for among, number in ((torch.cat([twin, original]), 1), (torch.cat([original, twin]), 0)):
        found = nearest(original, among)
        assert (found.number.item(), found.distance.item()) == (number, 0)


def test_no_image_is_its_own_nearest_if_it_is_not_to_be():
    images = pictures(12, 1)
    images[7] = images[3]
    for chunk_bytes in (1, 4 * 48 * 5, 2**26):
        found = nearest(images, images, exclude_self=True, chunk_bytes=chunk_bytes)
        assert not found.number.eq(torch.arange(12)).any()
        assert found.distance.eq(0).nonzero().flatten().tolist() == [3, 7]
        assert (found.number[3], found.number[7]) == (7, 3)


def test_some_of_the_images_can_be_kept_from_themselves():
    images, chosen = pictures(12, 1), torch.tensor([5, 0, 11])
    everyone = nearest(images, images, exclude_self=True)
    some = nearest(images[chosen], images, exclude_self=chosen, chunk_bytes=4 * 48 * 2)
    assert torch.equal(some.number, everyone.number[chosen])
    assert torch.equal(some.distance, everyone.distance[chosen])


@pytest.mark.parametrize(
    "images, among",
    [
        (pictures(0), pictures(2)),
        (pictures(2), pictures(0)),
        (pictures(2), pictures(2, channels=1)),
        (pictures(2), pictures(2, size=8)),
    ],
)
def test_nearest_of_nothing_or_of_other_shapes_is_refused(images, among):
    with pytest.raises(InputError, match="the same shape"):
        nearest(images, among)


def test_an_image_alone_has_no_nearest_but_itself():
    with pytest.raises(InputError, match="at least two"):
        nearest(pictures(1), pictures(1), exclude_self=True)
    with pytest.raises(InputError, match="3 images have 2 numbers"):
        nearest(pictures(3), pictures(5), exclude_self=torch.tensor([0, 1]))


# Memorization


@pytest.fixture(scope="module")
def faces() -> Tensor:
    """All portraits in a random order, uint8, shape (4000, 3, 16, 16)."""
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    return load_images("faces", 16)[order]


def test_fresh_portraits_are_no_copies(faces):
    found = memorization(faces[:500], faces[1000:], held_out=faces[500:1000])
    assert found.samples == pytest.approx(found.held_out, rel=0.05)
    assert found.copies < 0.04


def test_copies_are_copies_even_with_some_noise(faces):
    """All of the samples, or one in five."""
    training, held_out = faces[1000:], faces[500:1000]
    copies = to_images(training[:100]) + 0.01 * normal(100, 3, 16, 16)
    found = memorization(copies, training, held_out)
    assert found.samples < 0.1 * found.held_out and found.copies == 1
    found = memorization(torch.cat([to_pixels(copies), faces[:400]]), training, held_out)
    assert 0.2 <= found.copies < 0.24


def test_without_held_out_images_training_images_stand_for_them(faces):
    training = faces[1000:2000]
    alone = nearest(training, training, exclude_self=True).distance
    found = memorization(faces[:200], training)
    assert found.held_out == pytest.approx(alone.median().item())
    assert memorization(training[:50], training).copies == 1


def test_copies_are_found_where_the_training_images_repeat_themselves(faces):
    """The nearest 1% of held-out images is then at distance 0, and copies are not nearer."""
    training = faces[:100].repeat(2, 1, 1, 1)
    assert memorization(faces[:50], training).copies == 1
    assert memorization(faces[100:150], training).copies == 0


# The loss


class Constant(nn.Module):
    """A network that answers with one value."""

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.value.expand_as(x)


@pytest.mark.parametrize("prediction, expected", [("epsilon", 1.0), ("x0", 0.25), ("v", None)])
def test_the_loss_of_a_network_that_answers_0(prediction, expected):
    """It is the mean square of what is predicted: of noise 1, of the image its own, of v what the
    schedule mixes of both, alpha_bar + (1 - alpha_bar) 0.25."""
    diffusion = GaussianDiffusion(Constant(0.0), NoiseSchedule("linear", 100), prediction)
    levels = loss_by_timestep(diffusion, torch.full((100, 1, 8, 8), 0.5), bins=4)
    assert [level[:2] for level in levels] == [(0, 24), (25, 49), (50, 74), (75, 99)]
    for level in levels:
        alpha_bar = diffusion.schedule.alpha_bars[level.first : level.last + 1].mean().item()
        mixed = alpha_bar + (1 - alpha_bar) * 0.25
        assert level.loss == pytest.approx(expected or mixed, abs=0.05)


def test_levels_cover_every_timestep_once_however_they_divide():
    diffusion = GaussianDiffusion(Constant(0.0), NoiseSchedule("cosine", 10))
    for count in (1, 3, 10):
        levels = loss_by_timestep(diffusion, torch.zeros(2, 1, 2, 2), bins=count)
        seen = [t for level in levels for t in range(level.first, level.last + 1)]
        assert seen == list(range(10)) and len(levels) == count


def test_timesteps_stay_in_their_level_and_reach_all_of_it(monkeypatch):
    asked, loss = [], GaussianDiffusion.loss

    def spy(self: GaussianDiffusion, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        asked.append(t)
        return loss(self, x0, t, noise)

    monkeypatch.setattr(GaussianDiffusion, "loss", spy)
    diffusion = GaussianDiffusion(Constant(0.0), NoiseSchedule("cosine", 30))
    loss_by_timestep(diffusion, torch.zeros(300, 1, 2, 2), bins=3, batch_size=300)
    assert [sorted(set(t.tolist())) for t in asked] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 30)),
    ]


def test_the_noise_is_the_same_each_time_and_in_batches_of_any_size():
    diffusion = GaussianDiffusion(UNet.for_images(8, 3, 8), NoiseSchedule("cosine", 20))
    images = pictures(7, size=8)
    first = loss_by_timestep(diffusion, images, 5)
    assert loss_by_timestep(diffusion, images, 5) == first
    for size in (1, 3):
        again = loss_by_timestep(diffusion, images, 5, batch_size=size)
        assert [x.loss for x in again] == pytest.approx([x.loss for x in first], rel=1e-5)
    assert loss_by_timestep(diffusion, images, 5, seed=1) != first


def test_a_model_in_training_stays_so():
    diffusion = GaussianDiffusion(Constant(0.0), NoiseSchedule("cosine", 20)).train()
    (level,) = loss_by_timestep(diffusion, torch.zeros(1, 1, 2, 2), 1)
    assert diffusion.training and diffusion.network.training and level.loss > 0


def test_wrong_levels_and_no_images_are_refused():
    diffusion = GaussianDiffusion(Constant(0.0), NoiseSchedule("cosine", 20))
    for levels in (0, 21):
        with pytest.raises(InputError, match=f"1 to 20.*{levels}"):
            loss_by_timestep(diffusion, torch.zeros(1, 1, 2, 2), levels)
    with pytest.raises(InputError, match="at least one image"):
        loss_by_timestep(diffusion, torch.zeros(0, 1, 2, 2))
    with pytest.raises(InputError, match="batch size"):
        loss_by_timestep(diffusion, torch.zeros(1, 1, 2, 2), batch_size=0)


# Features


@pytest.fixture(scope="module")
def efficientnet():
    return eyes.efficientnet_features()


def test_features_tell_portraits_from_what_they_are_not(efficientnet, faces):
    """Nothing and noise are further off than blurred portraits, and these than other portraits."""
    half, other = to_images(faces[:60]).split(30)
    blurred = F.interpolate(F.avg_pool2d(other, 2), 16, mode="bilinear")
    black, noise = torch.full_like(other, -1), to_images(pictures(30, size=16))
    seen = efficientnet(half)
    distance = {
        name: kernel_distance(seen, efficientnet(some)).mean
        for name, some in dict(other=other, blurred=blurred, black=black, noise=noise).items()
    }
    assert abs(distance["other"]) < 0.1 * distance["blurred"]
    assert distance["blurred"] < 0.9 * min(distance["black"], distance["noise"])


def test_features_of_grey_and_coloured_images_of_any_size(efficientnet):
    grey = 2 * torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)) - 1
    seen = efficientnet(grey)
    assert seen.shape == (2, 1280) and seen.dtype == torch.float32 and not seen.requires_grad
    assert torch.allclose(efficientnet(grey.expand(-1, 3, -1, -1)), seen)
    assert torch.allclose(efficientnet(grey[:1]), seen[:1], atol=1e-4)  # whatever its company
    assert efficientnet(torch.zeros(1, 3, 9, 17)).shape == (1, 1280)


def test_the_network_gets_what_it_was_trained_on(monkeypatch):
    """(x - 127) / 128 for x in 0..255, with black and white as -1 and 1."""
    from efficientnet_lite_pytorch import EfficientNet

    given = []

    def spy(self: nn.Module, x: Tensor) -> Tensor:
        given.append(x)
        return torch.zeros(len(x), 1280, 4, 4)

    monkeypatch.setattr(EfficientNet, "extract_features", spy)
    images = torch.stack([torch.full((1, 8, 8), value) for value in (-1.0, 1.0)])
    eyes.efficientnet_features()(images)
    assert given[0].shape == (2, 3, 112, 112)
    assert torch.allclose(given[0][0], torch.tensor(-127 / 128))
    assert torch.allclose(given[0][1], torch.tensor(128 / 128))


def test_loading_features_prints_nothing(efficientnet, capsys):
    eyes.efficientnet_features()
    assert capsys.readouterr() == ("", "")


def test_efficientnet_that_is_not_installed_is_answered_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match="pip install efficientnet-lite-pytorch") as caught:
        eyes.efficientnet_features()
    assert "\n" not in str(caught.value)


INCEPTION = "torch_fidelity.feature_extractor_inceptionv3"


def pretend_inception(monkeypatch, extractor) -> None:
    module = SimpleNamespace(FeatureExtractorInceptionV3=extractor)
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(sys.modules, INCEPTION, module)


def test_inception_that_is_not_installed_is_answered_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setitem(sys.modules, INCEPTION, None)
    with pytest.raises(InputError, match="pip install torch-fidelity") as caught:
        eyes.inception_features()
    assert "\n" not in str(caught.value)


def test_inception_without_its_weights_is_answered_with_one_line(monkeypatch):
    def offline(*_):
        raise OSError("no route to host\nand much more")

    pretend_inception(monkeypatch, offline)
    with pytest.raises(InputError, match=r"weights of inception \(no route to host\)") as caught:
        eyes.inception_features()
    assert "\n" not in str(caught.value)


def test_inception_is_asked_as_torch_fidelity_wants_it(monkeypatch):
    """Coloured bytes in, a tuple with the 2,048 features out."""

    class Extractor(nn.Module):
        def __init__(self, name: str, features_list: list[str]):
            super().__init__()
            assert features_list == ["2048"]

        def forward(self, x: Tensor) -> tuple[Tensor]:
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            return (x.float().mean(dim=(1, 2, 3))[:, None].expand(-1, 2048),)

    pretend_inception(monkeypatch, Extractor)
    features = eyes.inception_features()
    for channels in (1, 3):
        seen = features(torch.ones(2, channels, 8, 8))
        assert seen.shape == (2, 2048) and seen.eq(255).all()
