"""Drawings: nothing is cut off, no two texts overlap, and the U-Net drawn is the U-Net built."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from diffusion_lib import drawings
from diffusion_lib.networks import UNet

NAMES = [
    "two_processes",
    "chain",
    "unet",
    "residual_block",
    "loss_pipeline",
    "ddim_step",
    "run_files",
    "course_map",
]


def texts(figure) -> list:
    return [text for text in figure.axes[0].texts if text.get_text().strip()]


def extents(figure) -> list:
    """Where the texts are, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [text.get_window_extent(canvas.get_renderer()) for text in texts(figure)]


def test_every_drawing_is_tested():
    public = [name for name in vars(drawings) if not name.startswith("_") and name.islower()]
    functions = [n for n in public if getattr(drawings, n).__module__ == drawings.__name__]
    assert functions == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_cut_off_or_lies_on_another(name):
    figure = getattr(drawings, name)()
    boxes = extents(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_png_on_white_that_is_read_at_the_width_of_a_page(name):
    figure = getattr(drawings, name)()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert figure.get_facecolor() == (1, 1, 1, 1)
    assert figure.get_size_inches()[0] <= 11
    assert min(text.get_fontsize() for text in texts(figure)) >= 9


def test_the_unet_drawn_is_the_one_of_page_03():
    network = UNet.for_images(16, channels=3, width=32)
    drawn = " ".join(text.get_text() for text in texts(drawings.unet()))
    resolutions = (16, 8, 4)
    for blocks, size in zip(network.down, resolutions, strict=True):
        channels = blocks[-1].residual.conv2.out_channels
        assert len(blocks) == 2
        assert drawn.count(f"{channels} x {size} x {size}") >= 2
    assert f"{network.time[-1].out_features} numbers" in drawn
