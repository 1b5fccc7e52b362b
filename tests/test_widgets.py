"""The widgets of the notebooks: what they show, and that their controls change it."""

import io
import os
import signal
from dataclasses import replace
from datetime import datetime

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_lib import (
    GaussianDiffusion,
    NoiseSchedule,
    TrainConfig,
    Trainer,
    UNet,
    ddim,
    explorer,
    plots,
    sample,
)
from diffusion_lib.diffusion import build
from diffusion_lib.explorer import schedule_code, schedule_figure
from diffusion_lib.widgets import (
    denoising_scrubber,
    guidance_explorer,
    schedule_explorer,
    scrubber_frame,
    status_line,
    training_view,
    uploaded_files,
)

FACE = torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
GREY = torch.randint(0, 256, (1, 8, 8), generator=torch.Generator().manual_seed(1)).byte()


def opened(png: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(png)).convert("RGB"))


def different(some: Image.Image, other: Image.Image) -> bool:
    return some.size != other.size or some.tobytes() != other.tobytes()


def inside(widget: widgets.Widget, kind: type, description: str = "") -> widgets.Widget:
    """The first widget of a kind in a box, with this description if one is given."""
    found = [
        w
        for w in everything(widget)
        if isinstance(w, kind) and (not description or w.description == description)
    ]
    return found[0]


def everything(widget: widgets.Widget) -> list[widgets.Widget]:
    return [widget, *(w for child in getattr(widget, "children", ()) for w in everything(child))]


# Schedule explorer


def test_the_figure_changes_with_the_cursor_the_schedule_and_the_picture():
    linear, cosine = NoiseSchedule("linear"), NoiseSchedule("cosine")
    first = schedule_figure([linear], FACE, 0.3)
    assert not different(first, schedule_figure([NoiseSchedule("linear")], FACE, 0.3))
    assert different(first, schedule_figure([linear], FACE, 0.4))
    assert different(first, schedule_figure([cosine], FACE, 0.3))
    assert different(first, schedule_figure([linear, cosine], FACE, 0.3))
    assert different(first, schedule_figure([NoiseSchedule("linear", beta_end=0.01)], FACE, 0.3))
    assert different(first, schedule_figure([linear], GREY, 0.3))


def test_nothing_of_an_earlier_figure_is_left_in_a_later_one():
    """The frame of the plots is drawn once and kept: curves must not stay in it."""
    alone = schedule_figure([NoiseSchedule("linear")], FACE, 0.3)
    schedule_figure([NoiseSchedule(name) for name in ("cosine", "sigmoid")], FACE, 0.9)
    assert not different(alone, schedule_figure([NoiseSchedule("linear")], FACE, 0.3))


def test_a_curve_runs_through_the_values_of_its_schedule():
    """The pixel where alpha_bar of the linear schedule is a half has the curve's colour."""
    schedule = NoiseSchedule("linear")
    _, _, lines = explorer.empty_curves()
    picture = np.array(explorer.draw_curves([schedule], 0.99))
    half = (schedule.alpha_bars < 0.5).nonzero()[0].item() / 999
    x, y = lines[1].axes.transData.transform((half, 0.5))
    red, _, blue = picture[round(picture.shape[0] - y), round(x)].astype(int)
    assert blue - red > 80  # C0, on white
    red, _, blue = picture[round(picture.shape[0] - y), round(x) + 40].astype(int)
    assert abs(blue - red) < 10


def test_the_strip_goes_from_the_picture_to_noise():
    strip = np.array(explorer.draw_strips([NoiseSchedule("cosine")], FACE / 127.5 - 1, 1.0))
    large = FACE.repeat_interleave(4, 1).repeat_interleave(4, 2).permute(1, 2, 0).numpy()
    first = strip[30:94, 70:134].astype(int)
    assert np.abs(first - large).mean() < 8  # one faint step
    last, at_cursor = strip[30:94, 70 + 660 : 134 + 660], strip[30:94, 70 + 742 : 134 + 742]
    assert np.array_equal(last, at_cursor)
    assert np.abs(np.corrcoef(last.ravel(), large.ravel())[0, 1]) < 0.2


def test_small_and_grey_pictures_and_the_shortest_schedule_are_drawn():
    schedules = [NoiseSchedule(name, 2, 0.1, 0.8) for name in explorer.COLORS]
    assert schedule_figure(schedules, GREY, 1.0).width == 880


def test_the_code_makes_the_schedules_that_are_shown():
    settings = dict(timesteps=300, beta_start=2e-4, beta_end=0.07, s=0.05)
    lines = schedule_code(["linear", "cosine", "straight"], **settings).splitlines()
    for line, name in zip(lines, ["linear", "cosine", "straight"], strict=True):
        made = eval(line, {"NoiseSchedule": NoiseSchedule})
        assert torch.equal(made.betas, NoiseSchedule(name, **settings).betas)


def test_the_code_leaves_defaults_out():
    assert schedule_code(["linear"]) == 'NoiseSchedule("linear", timesteps=1000)'
    assert schedule_code(["cosine"], s=0.1) == 'NoiseSchedule("cosine", timesteps=1000, s=0.1)'
    assert "end" not in schedule_code(["cosine"], beta_end=0.5)


@pytest.mark.parametrize(
    ("kind", "description", "value"),
    [
        (widgets.FloatSlider, "cursor t / T", 0.8),
        (widgets.SelectionSlider, "T", 50),
        (widgets.SelectionSlider, "beta_start", 1e-3),
        (widgets.SelectionSlider, "beta_end", 0.1),
        (widgets.FloatSlider, "s (cosine)", 0.1),
        (widgets.ToggleButton, "sigmoid", True),
        (widgets.Dropdown, "picture", "grey"),
    ],
)
def test_every_control_of_the_explorer_redraws_the_picture(kind, description, value):
    box = schedule_explorer({"face": FACE, "grey": GREY})
    figure = inside(box, widgets.Image)
    before = figure.value
    inside(box, kind, description).value = value
    assert opened(figure.value).shape[2] == 3
    assert figure.value != before


def test_the_explorer_prints_the_code_of_what_it_shows():
    box = schedule_explorer({"face": FACE})
    inside(box, widgets.SelectionSlider, "T").value = 200
    words = inside(box, widgets.HTML).value
    assert "NoiseSchedule(&quot;linear&quot;, timesteps=200)" in words


def test_settings_that_cannot_be_are_answered_in_words_and_the_picture_stays():
    box = schedule_explorer({"face": FACE})
    figure, words = inside(box, widgets.Image), inside(box, widgets.HTML)
    before = figure.value
    inside(box, widgets.SelectionSlider, "beta_end").value = 1e-3
    inside(box, widgets.SelectionSlider, "beta_start").value = 1e-2
    assert "beta_start &lt;= beta_end" in words.value and figure.value != before  # the end was fine
    for name in ("linear", "cosine"):
        inside(box, widgets.ToggleButton, name).value = False
    assert "choose at least one schedule" in words.value


def uploaded(name: str, content: bytes) -> dict:
    return {
        "name": name,
        "type": "",
        "size": len(content),
        "content": memoryview(content),
        "last_modified": datetime(2020, 1, 1),
    }


def test_an_uploaded_picture_is_shown():
    box = schedule_explorer({"face": FACE})
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "green").save(buffer, "jpeg")
    before = inside(box, widgets.Image).value
    inside(box, widgets.FileUpload).value = (uploaded("mine.jpg", buffer.getvalue()),)
    assert inside(box, widgets.Dropdown, "picture").value == "mine.jpg"
    assert inside(box, widgets.Image).value != before


def test_uploads_are_read_in_the_form_of_ipywidgets_8_and_of_7():
    eight = (uploaded("a.png", b"one"), uploaded("b.png", b"two"))
    seven = {"a.png": {"content": b"one"}, "b.png": {"content": b"two"}}
    assert uploaded_files(eight) == uploaded_files(seven) == [("a.png", b"one"), ("b.png", b"two")]


def test_an_upload_that_is_no_picture_is_named():
    box = schedule_explorer({"face": FACE})
    inside(box, widgets.FileUpload).value = (uploaded("<notes>.txt", b"hello"),)
    assert "&lt;notes&gt;.txt is not an image" in inside(box, widgets.HTML).value
    assert inside(box, widgets.Dropdown, "picture").value == "face"


# Denoising scrubber


@pytest.fixture
def run():
    """(x_T, all steps) of an untrained model."""
    torch.manual_seed(0)
    model = GaussianDiffusion(UNet(8, 3, 8, (1,), 1), NoiseSchedule("cosine", 20))
    noise = torch.randn(4, 3, 8, 8)
    return noise, list(ddim(model, noise, 5))


def test_a_frame_shows_the_image_beside_its_predicted_end(run):
    noise, steps = run
    frames = [scrubber_frame(noise, steps, i) for i in range(len(steps) + 1)]
    assert len({frame.size for frame in frames}) == 1
    last = np.array(frames[-1])
    width = (last.shape[1] - 16) // 2
    assert np.array_equal(last[22:, :width], last[22:, width + 16 :])  # the end is its own guess
    first = np.array(frames[0])
    assert not np.array_equal(first[22:, :width], first[22:, width + 16 :])


def test_the_slider_turns_the_frames(run):
    noise, steps = run
    box = denoising_scrubber(noise, steps)
    picture, slider = inside(box, widgets.Image), inside(box, widgets.IntSlider)
    assert slider.max == len(steps)
    for i in (0, 3, len(steps)):
        slider.value = i
        assert np.array_equal(opened(picture.value), np.array(scrubber_frame(noise, steps, i)))


# Live view of a training run

PIXELS = torch.randint(0, 256, (6, 3, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
TINY = TrainConfig(
    image_size=8, width=8, timesteps=20, epochs=4, batch_size=2, report_every=1, device="cpu"
)


@pytest.fixture
def trainer():
    return Trainer(build(TINY, 3), PIXELS, TINY)


@pytest.fixture
def displayed(monkeypatch):
    """What the view displays, in order."""
    shown = []
    monkeypatch.setattr("diffusion_lib.widgets.display", shown.append)
    return shown


def test_the_view_passes_every_report_on_and_shows_the_last(trainer, displayed):
    reports = list(training_view(trainer))
    assert [report.step for report in reports] == list(range(1, 13))
    (box,) = displayed
    assert inside(box, widgets.IntProgress).value == 12
    assert "step 12 of 12" in inside(box, widgets.HTML).value
    assert all(opened(w.value).size for w in everything(box) if isinstance(w, widgets.Image))


def test_watching_does_not_change_what_is_learnt(trainer, displayed):
    list(training_view(trainer, sample_every=0))
    alone = Trainer(build(TINY, 3), PIXELS, TINY)
    list(alone)
    for seen, unseen in zip(trainer.average.parameters(), alone.average.parameters(), strict=True):
        assert torch.equal(seen, unseen)


def test_the_view_of_points_draws_no_samples(displayed):
    points = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))

    class Network(torch.nn.Linear):
        def forward(self, x, t):
            return super().forward(x)

    model = GaussianDiffusion(Network(2, 2), NoiseSchedule("linear", 10))
    config = replace(TINY, timesteps=10)
    assert list(training_view(Trainer(model, points, config), samples=0))
    assert len([w for w in everything(displayed[0]) if isinstance(w, widgets.Image)]) == 1


def test_the_stop_button_ends_the_view_and_the_run_goes_on_later(trainer, displayed):
    usual = signal.getsignal(signal.SIGINT)
    for report in training_view(trainer):
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGINT)  # what JupyterLab's button sends to the kernel
    assert trainer.step == 3
    assert "stopped after step 3 of 12" in inside(displayed[0], widgets.HTML).value
    assert signal.getsignal(signal.SIGINT) is usual
    assert [report.step for report in training_view(trainer)] == list(range(4, 13))


def test_the_view_takes_what_others_make_of_the_run(trainer, displayed):
    assert len(list(training_view(trainer, (report for report in trainer)))) == 12


def test_the_status_says_how_long_it_will_take(trainer):
    report = replace(next(iter(trainer)), step=3, steps=12, seconds=6.0, loss=0.25)
    assert status_line(report).startswith("step 3 of 12 · loss 0.2500 · ")
    assert status_line(report).endswith(" 0:00:18 to go")


# Guidance


def test_the_guidance_explorer_draws_what_is_chosen():
    torch.manual_seed(0)
    network = UNet.for_images(8, 1, 8, classes=(2, 2))
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    classes = {"hair": ["long", "none"], "hat": ["none", "red"]}
    diffusion = GaussianDiffusion(network, NoiseSchedule("cosine", 20), classes=classes)
    box = guidance_explorer(diffusion, count=3)
    (hair, hat, scale, seed), picture = box.children[0].children, box.children[1]
    assert hair.options == ("any", "long", "none") and hat.options == ("any", "none", "red")

    def shown() -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(picture.value)))

    def expected(**how) -> np.ndarray:
        return np.asarray(plots.grid_image(sample(diffusion, 3, steps=10, **how), 3))

    assert np.array_equal(shown(), expected(seed=0))  # whatever comes
    hat.value = "none"
    assert np.array_equal(shown(), expected(seed=0, labels="hat=none", guidance=2.0))
    hair.value, scale.value, seed.value = "none", 4.0, 2
    chosen = "hair=none+hat=none"
    assert np.array_equal(shown(), expected(seed=2, labels=chosen, guidance=4.0))
