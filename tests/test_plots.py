"""Pictures: what they show is what they were given, the right way round."""

from io import BytesIO
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from diffusion_lib import GaussianDiffusion, NoiseSchedule, charts, ddim, explorer, plots
from diffusion_lib.images.pixels import to_images
from diffusion_lib.plots import (
    Film,
    denoising_strip,
    film,
    image_film,
    image_grid,
    image_rows,
    image_strip,
    loss_curve,
    save_grid,
    save_image,
)


def some_pixels(count=5, channels=3, height=6, width=8):
    """Images that are no mirror image of themselves, and wider than high."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def as_seen(pixels):
    """(C, H, W), uint8 -> (H, W, 3), with plain loops."""
    channels, height, width = pixels.shape
    return np.array(
        [
            [[pixels[c % channels, y, x].item() for c in range(3)] for x in range(width)]
            for y in range(height)
        ],
        dtype=np.uint8,
    )


def shown(axes):
    return np.asarray(axes.get_images()[0].get_array())


def assert_draws(figure):
    """It is a Figure that can be drawn, and that pyplot does not keep."""
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == []
    file = BytesIO()
    figure.savefig(file)
    assert len(np.unique(np.asarray(Image.open(file).convert("L")))) > 2


both_dtypes = pytest.mark.parametrize("convert", [lambda x: x, to_images], ids=["bytes", "floats"])
grey_and_colour = pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])


@both_dtypes
@grey_and_colour
@pytest.mark.parametrize(("columns", "across"), [(None, 2), (3, 3), (5, 5), (1, 1)])
def test_a_grid_shows_the_images_row_by_row(convert, channels, columns, across):
    pixels = some_pixels(5, channels)
    figure = image_grid(convert(pixels), columns, title="some images")
    [axes] = figure.axes
    assert axes.get_title() == "some images"
    picture, down = shown(axes), -(-5 // across)
    assert picture.shape == (down * 7 + 1, across * 9 + 1, 3)
    for i in range(5):
        top, left = 1 + i // across * 7, 1 + i % across * 9
        np.testing.assert_array_equal(picture[top : top + 6, left : left + 8], as_seen(pixels[i]))


@both_dtypes
@grey_and_colour
def test_a_grid_draws(convert, channels):
    assert_draws(image_grid(convert(some_pixels(5, channels))))


def test_a_grid_takes_a_single_image():
    pixels = some_pixels(1)
    picture = shown(image_grid(pixels).axes[0])
    inner = picture[1:-1, 1:-1] if len(picture) > 6 else picture  # with a border or without
    np.testing.assert_array_equal(inner, as_seen(pixels[0]))


def test_floats_beyond_the_range_are_clipped_not_wrapped():
    images = torch.tensor([-5.0, -1.0, 0.99999, 5.0]).view(1, 1, 2, 2).expand(2, 1, 2, 2)
    picture = shown(image_grid(images, columns=1).axes[0])
    assert picture[1:3, 1:3, 0].tolist() == [[0, 0], [255, 255]]


@both_dtypes
@grey_and_colour
@pytest.mark.parametrize("count", [1, 4])
def test_a_strip_shows_each_image_under_its_label(convert, channels, count):
    pixels, labels = some_pixels(count, channels), [f"number {i}" for i in range(count)]
    figure = image_strip(convert(pixels), labels, title="a strip")
    assert figure.get_suptitle() == "a strip"
    assert [axes.get_title() for axes in figure.axes] == labels
    for axes, image in zip(figure.axes, pixels, strict=True):
        np.testing.assert_array_equal(shown(axes), as_seen(image))
    assert_draws(figure)


def test_rows_show_each_image_beside_its_name_and_under_its_label():
    pixels = some_pixels(4)
    rows = {"one": pixels[:2], "two": list(pixels[2:])}
    figure = image_rows(rows, ["left", "right"], "both", {"one": ["a", "b"], "two": ["c", "d"]})
    assert [axes.get_title() for axes in figure.axes] == ["left", "right", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["one", "", "two", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["a", "b", "c", "d"]
    assert figure.get_suptitle() == "both"
    for axes, image in zip(figure.axes, pixels, strict=True):
        assert np.array_equal(axes.images[0].get_array(), as_seen(image))


def test_rows_need_no_labels_but_one_for_each_column_if_any():
    assert len(image_rows({"one": some_pixels(3)}).axes) == 3
    with pytest.raises(ValueError):
        image_rows({"one": some_pixels(3)}, ["left"])
    with pytest.raises(ValueError):
        image_rows({"one": some_pixels(3), "two": some_pixels(2)})


def test_a_strip_with_too_few_labels_is_refused():
    with pytest.raises(ValueError):
        image_strip(some_pixels(3), ["one", "two"])


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def run(request):
    """Noise, and all that a sampler made of it."""
    noise = torch.randn(2, request.param, 6, 8, generator=torch.Generator().manual_seed(0))
    model = GaussianDiffusion(torch.nn.Tanh(), NoiseSchedule("linear", 20, 1e-3, 0.3), "x0")
    model.network.forward = lambda x, t: torch.tanh(x + t.view(-1, 1, 1, 1) / 20)
    return noise, list(ddim(model, noise))


def seen(image):
    return as_seen(((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))


def test_a_denoising_strip_goes_from_the_noise_to_the_sample(run):
    noise, steps = run
    figure = denoising_strip(noise, steps, stages=5)
    above, below = figure.axes[:5], figure.axes[5:]
    assert len(below) == 5
    assert above[0].get_ylabel() == "x_t"
    assert below[0].get_ylabel() == "predicted\nclean image"
    titles = [axes.get_title() for axes in above]
    assert titles == ["t = 19", "t = 14", "t = 9", "t = 4", "sample"]
    for axes, x in zip(above, [noise, *(steps[i].x for i in (4, 9, 14, 19))], strict=True):
        np.testing.assert_array_equal(shown(axes), seen(x[0]))
    for axes, i in zip(below, (0, 5, 10, 15, 19), strict=True):
        np.testing.assert_array_equal(shown(axes), seen(steps[i].x0[0]))
    assert_draws(figure)


def test_a_denoising_strip_has_ten_stages_and_may_have_more_than_there_are_steps(run):
    noise, steps = run
    assert len(denoising_strip(noise, steps).axes) == 20
    few = denoising_strip(noise, steps[-3:], stages=6)
    assert len(few.axes) == 12
    assert [few.axes[i].get_title() for i in (0, 5)] == ["t = 2", "sample"]


def test_a_loss_curve_is_loss_over_steps():
    reports = [SimpleNamespace(step=step, loss=1 / step) for step in (5, 10, 20)]
    figure = loss_curve(reports)
    [axes] = figure.axes
    [line] = axes.get_lines()
    assert list(line.get_xdata()) == [5, 10, 20]
    assert list(line.get_ydata()) == [1 / 5, 1 / 10, 1 / 20]
    assert axes.get_xlabel() == "step"
    assert "loss" in axes.get_ylabel()
    assert_draws(figure)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_saved_image_has_the_pixels_and_the_mode_it_was_given(tmp_path, channels, mode):
    [pixels] = some_pixels(1, channels)
    save_image(to_images(pixels), tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert (image.format, image.mode) == ("PNG", mode)
        assert image.size == (8, 6)  # width, height
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), as_seen(pixels))


def test_every_byte_survives_being_saved(tmp_path):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 8, 32)
    save_image(to_images(pixels), tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        np.testing.assert_array_equal(np.asarray(image), pixels[0])


def test_the_name_says_in_which_format_an_image_is_saved(tmp_path):
    image = torch.linspace(-1, 1, 32).expand(3, 16, 32)
    save_image(image, tmp_path / "image.jpg")
    with Image.open(tmp_path / "image.jpg") as saved:
        assert (saved.format, saved.size) == ("JPEG", (32, 16))
        difference = np.asarray(saved).astype(int) - seen(image)
        assert np.abs(difference).max() < 12


@grey_and_colour
@pytest.mark.parametrize(("count", "columns", "across"), [(5, None, 2), (5, 3, 3), (3, 1, 1)])
def test_a_saved_grid_holds_every_image_pixel_for_pixel(tmp_path, channels, count, columns, across):
    pixels = some_pixels(count, channels, 64, 70)
    save_grid(to_images(pixels), tmp_path / "grid.png", columns)
    with Image.open(tmp_path / "grid.png") as image:
        picture = np.asarray(image.convert("RGB"))
    assert picture.shape == (-(-count // across) * 66 + 2, across * 72 + 2, 3)
    for i in range(count):
        top, left = 2 + i // across * 66, 2 + i % across * 72
        tile = picture[top : top + 64, left : left + 70]
        np.testing.assert_array_equal(tile, as_seen(pixels[i]))


@pytest.mark.parametrize("size", [1, 8, 28, 48, 63, 64])
def test_small_images_of_a_saved_grid_are_enlarged_to_at_least_64_pixels(tmp_path, size):
    pixels = some_pixels(2, 1, size, size)
    save_grid(to_images(pixels), tmp_path / "grid.png", columns=2)
    with Image.open(tmp_path / "grid.png") as image:
        picture = np.asarray(image.convert("L"))
    side = picture.shape[0] - 4
    assert picture.shape == (side + 4, 2 * side + 6)
    assert 64 <= side < 128
    assert side % size == 0
    larger = np.kron(pixels[1, 0].numpy(), np.ones((side // size,) * 2, dtype=np.uint8))
    np.testing.assert_array_equal(picture[2:-2, side + 4 : -2], larger)


# Films


def frames_of(png: bytes) -> list[np.ndarray]:
    """The frames of an animated PNG or GIF, each (H, W, 3)."""
    animation = Image.open(BytesIO(png))
    shown = []
    for i in range(animation.n_frames):
        animation.seek(i)
        shown.append(np.array(animation.convert("RGB")))
    return shown


def test_a_film_shows_its_frames_in_order_and_for_as_long_as_it_was_told():
    colours = ["red", "blue", "white", "black"]
    made = Film([Image.new("RGB", (5, 4), colour) for colour in colours], seconds=2)
    shown = frames_of(made._repr_png_())
    assert [tuple(frame[0, 0]) for frame in shown] == [
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 255),
        (0, 0, 0),
    ]
    assert made.milliseconds == [500, 500, 500, 2000]


def test_white_stays_white_in_a_film_of_many_colours():
    noise = np.random.default_rng(0).integers(0, 250, (64, 64, 3), np.uint8)
    noise[:8] = 255
    (frame,) = frames_of(Film([Image.fromarray(noise)])._repr_png_())
    assert (frame[:8] == 255).all()


def test_a_film_plays_again_and_again():
    made = Film([Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")])
    assert Image.open(BytesIO(made._repr_png_())).info["loop"] == 0


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_a_film_is_saved_as_its_name_says(tmp_path, ending):
    path = tmp_path / f"film.{ending}"
    image_film([some_pixels(4) for _ in range(3)] + [some_pixels(4).flip(3)]).save(path)
    with Image.open(path) as animation:
        assert animation.format == ending.upper()
        assert animation.is_animated


def test_a_film_of_images_shows_every_batch():
    white, black = torch.ones(4, 1, 8, 8), -torch.ones(4, 1, 8, 8)
    first, last = frames_of(image_film([white, black], columns=2)._repr_png_())
    assert first.min() == 255
    assert np.median(last) == 0


def test_a_film_of_a_plot_draws_each_frame_on_empty_axes():
    seen = []

    def draw(axes, frame):
        seen.append((frame, [len(one.lines) for one in axes]))
        axes[0].plot([0, 1], [0, frame])

    made = film(draw, [1, 2, 3], figsize=(3, 2), columns=2)
    assert seen == [(1, [0, 0]), (2, [0, 0]), (3, [0, 0])]
    assert made.frames[0].size == (240, 160)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.image_rows({"a": -torch.ones(2, 3, 8, 8)}),
        lambda: charts.curves([1, 2], {"a": [1, 2], "b": [2, 1]}),
        lambda: charts.bars({"a": (1, 0.5, 2)}),
        lambda: charts.points({"a": torch.eye(2)}, arrows={"a": torch.eye(2)}),
        lambda: film(lambda axes, frame: axes.plot([0, frame]), [1, 2]),
        lambda: explorer.draw_strips(
            [NoiseSchedule("linear"), NoiseSchedule("cosine")], -torch.ones(3, 8, 8), 0.4
        ),
    ],
)
def test_the_dark_style_of_matplotlib_leaves_nothing_white_but_words_and_lines(draw):
    def brightness() -> float:
        picture = draw()
        if not isinstance(picture, Image.Image):
            picture = Image.open(BytesIO(picture._repr_png_()))
        return np.asarray(picture.convert("L")).mean() / 255

    light = brightness()
    with plt.style.context("dark_background"):
        assert brightness() < min(0.3, light - 0.2)
        assert plots.paper_and_ink() == ("#000000", "#ffffff")
    assert plots.paper_and_ink() == ("#ffffff", "#000000")
