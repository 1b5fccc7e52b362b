"""Widgets for the notebooks: schedule explorer, denoising scrubber, live view of a training run.

What they show is made by plain functions, as PNG bytes for one `widgets.Image`: replacing its value
redraws without flicker, in JupyterLab, Notebook 7 and Colab, and needs no extension but ipywidgets
(8, or 7.7, which Colab has).
"""

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from html import escape
from itertools import islice
from typing import NamedTuple

import ipywidgets as widgets
import numpy as np
import torch
from IPython.display import display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_lib.errors import InputError
from diffusion_lib.images.files import read_square
from diffusion_lib.images.pixels import to_images
from diffusion_lib.plots import as_array, grid_image, loss_curve
from diffusion_lib.samplers import Step, ddim, initial_noise
from diffusion_lib.schedules import SCHEDULES, NoiseSchedule
from diffusion_lib.stopping import stop_on_signals
from diffusion_lib.training import Report, Trainer

# Round numbers, because a slider with a logarithmic scale would turn 0.02 into 0.01995.
BETAS = [float(f"{m}e{e}") for e in range(-6, 0) for m in (1, 1.5, 2, 3, 5, 7)] + [0.9]
COLOURS = dict(zip(SCHEDULES, ("C0", "C1", "C2", "C3"), strict=True))  # always the same for a name


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes that `widgets.Image` shows."""
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


# Schedule explorer


def schedule_figure(schedules: Sequence[NoiseSchedule], picture: Tensor, t: float) -> Image.Image:
    """betas, alpha_bars and log-SNR of some schedules, and what they make of a picture.

    Args:
        schedules: to compare.
        picture: (C, H, W), uint8 or in [-1, 1].
        t: where the cursor stands, as a share of the way, 0 to 1.
    """
    curves = draw_curves(schedules, t)
    strips = draw_strips(schedules, to_images(picture), t)
    together = Image.new("RGB", (curves.width, curves.height + strips.height), "white")
    together.paste(curves, (0, 0))
    together.paste(strips, (0, curves.height))
    return together


class Panel(NamedTuple):
    """A plot of the explorer. Its limits stand still, so that only the curves move."""

    attribute: str
    title: str
    limits: tuple[float, float]
    scale: str = "linear"


PANELS = (
    Panel("betas", "beta: noise that a step adds", (1e-6, 1.5), "log"),
    Panel("alpha_bars", "alpha_bar: share of the picture left", (-0.02, 1.02)),
    Panel("log_snr", "log signal-to-noise ratio", (-22, 15)),
)


@lru_cache(maxsize=1)
def empty_curves() -> tuple[FigureCanvasAgg, object, list[Line2D]]:
    """The panels without curves: their canvas, its pixels, and a line a panel to draw with.

    Nearly all the time that a plot takes goes into its frame, so this is done only once.
    """
    figure = Figure(figsize=(11, 2.9), dpi=80)
    canvas = FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(PANELS))
    figure.subplots_adjust(left=0.05, right=0.985, top=0.9, bottom=0.17, wspace=0.2)
    for axes, panel in zip(all_axes, PANELS, strict=True):
        axes.set(xlim=(0, 1), xlabel="t / T", yscale=panel.scale, ylim=panel.limits)
        axes.set_title(panel.title, fontsize=10)
        axes.grid(alpha=0.3)
    lines = [axes.plot([])[0] for axes in all_axes]
    canvas.draw()
    return canvas, canvas.copy_from_bbox(figure.bbox), lines


def draw_curves(schedules: Sequence[NoiseSchedule], t: float) -> Image.Image:
    """The panels with a curve for each schedule, and the cursor."""
    canvas, background, lines = empty_curves()
    canvas.restore_region(background)
    for panel, line in zip(PANELS, lines, strict=True):
        for schedule in schedules:
            way = np.linspace(0, 1, schedule.timesteps)
            line.set(data=(way, getattr(schedule, panel.attribute).numpy()), linewidth=1.5)
            line.set_color(COLOURS[schedule.name])
            line.axes.draw_artist(line)
        line.set(data=([t, t], panel.limits), color="black", linewidth=0.8)
        line.axes.draw_artist(line)
    curves = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    legend = ImageDraw.Draw(curves)
    for i, schedule in enumerate(schedules):
        # In the lower left of the panel of alpha_bars, where no curve comes.
        place = (lines[1].axes.bbox.x0 + 8, 185 - 15 * (len(schedules) - i))
        legend.text(place, schedule.name, to_hex(COLOURS[schedule.name]), font_size=12)
    return curves


def draw_strips(
    schedules: Sequence[NoiseSchedule], image: Tensor, t: float, stages: int = 11, side: int = 64
) -> Image.Image:
    """A row of noised pictures for each schedule, and beside it the one at the cursor.

    Args:
        schedules, t: as above.
        image: (C, H, W) in [-1, 1].
        stages: pictures in a row, from t = 0 to T - 1.
        side: of each of them, in pixels.
    """
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    shares = [*np.linspace(0, 1, stages), t]
    left, pitch = 70, side + 2
    strips = Image.new("RGB", (880, 36 + pitch * len(schedules)), "white")
    text = ImageDraw.Draw(strips)
    columns = [left + pitch * i for i in range(stages)] + [left + pitch * stages + 16]
    for x, share in zip(columns, shares, strict=True):
        text.text((x + side / 2, 18), f"{share:.2f}", "black", anchor="mm", font_size=12)
    text.text((left - 8, 18), "t / T", "black", anchor="rm", font_size=12)
    for row, schedule in enumerate(schedules):
        y = 30 + pitch * row
        colour = to_hex(COLOURS[schedule.name])
        text.text((left - 8, y + side / 2), schedule.name, colour, anchor="rm", font_size=12)
        steps = torch.tensor([round(share * (schedule.timesteps - 1)) for share in shares])
        stack = image.expand(len(steps), -1, -1, -1)  # (stages + 1, C, H, W)
        for x, noised in zip(
            columns, schedule.add_noise(stack, steps, noise.expand_as(stack)), strict=True
        ):
            small = Image.fromarray(as_array(noised))
            strips.paste(small.resize((side, side), Image.Resampling.NEAREST), (x, y))
    # The cursor, on the scale of the pictures' centres.
    x = left + side / 2 + t * pitch * (stages - 1)
    text.polygon([(x - 5, 2), (x + 5, 2), (x, 10)], fill="black")
    frame = (columns[-1] - 2, 28, columns[-1] + side + 1, 30 + pitch * len(schedules) - 1)
    text.rectangle(frame, outline="black")
    return strips


def schedule_code(
    names: Sequence[str],
    timesteps: int = 1000,
    start: float = 1e-4,
    end: float = 0.02,
    s: float = 0.008,
) -> str:
    """The lines of code that make these schedules, with the arguments that are not the defaults."""
    lines = []
    for name in names:
        arguments = [repr(name), f"timesteps={timesteps}"]
        if name == "cosine":
            arguments += [f"s={s:.4g}"] if s != 0.008 else []
        else:
            arguments += [f"start={start:.4g}"] if start != 1e-4 else []
            arguments += [f"end={end:.4g}"] if end != 0.02 else []
        lines.append(f"NoiseSchedule({', '.join(arguments)})".replace("'", '"'))
    return "\n".join(lines)


def schedule_explorer(pictures: Mapping[str, Tensor]) -> widgets.Widget:
    """Choose schedules and their settings, and see what they do to a picture.

    Args:
        pictures: by name, (C, H, W), uint8 or in [-1, 1]; more can be uploaded.
    """
    pictures = dict(pictures)
    chosen = [
        widgets.ToggleButton(
            name in ("linear", "cosine"), description=name, layout={"width": "auto"}
        )
        for name in SCHEDULES
    ]
    timesteps = widgets.SelectionSlider(
        options=[2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000], value=1000, description="T"
    )
    start = widgets.SelectionSlider(options=BETAS[:-3], value=1e-4, description="start")
    end = widgets.SelectionSlider(options=BETAS[12:], value=0.02, description="end")
    s = widgets.FloatSlider(0.008, min=0, max=0.2, step=0.002, description="s (cosine)")
    s.readout_format = ".3f"
    t = widgets.FloatSlider(0.3, min=0, max=1, step=0.01, description="cursor t / T")
    name = widgets.Dropdown(options=list(pictures), description="picture")
    upload = widgets.FileUpload(accept="image/*", description="your own")
    figure = widgets.Image(format="png")
    words = widgets.HTML()

    def redraw(_=None) -> None:
        names = [button.description for button in chosen if button.value]
        settings = dict(timesteps=timesteps.value, start=start.value, end=end.value, s=s.value)
        try:
            if not names:
                raise InputError("choose at least one schedule")
            schedules = [NoiseSchedule(name, **settings) for name in names]
        except InputError as error:
            words.value = f"<b>{escape(str(error))}</b>"
            return
        figure.value = png(schedule_figure(schedules, pictures[name.value], t.value))
        words.value = f"<pre>{escape(schedule_code(names, **settings))}</pre>"

    def add(_) -> None:
        for title, content in uploaded_files(upload.value):
            square = read_uploaded(content)
            if square is None:
                words.value = f"<b>{escape(title)} is no image that can be read</b>"
            else:
                pictures[title] = square
                name.options = list(pictures)
                name.value = title

    for control in (*chosen, timesteps, start, end, s, t, name):
        control.observe(redraw, "value")
    upload.observe(add, "value")
    redraw()
    columns = [
        widgets.VBox([widgets.HBox(chosen), timesteps, t]),
        widgets.VBox([start, end, s]),
        widgets.VBox([name, upload]),
    ]
    return widgets.VBox([widgets.HBox(columns), figure, words])


def uploaded_files(value: Sequence[dict] | Mapping[str, dict]) -> list[tuple[str, bytes]]:
    """Names and contents from the value of a `FileUpload`.

    A sequence of {"name", "content"} in ipywidgets 8; {name: {"content"}} in 7, which Colab has.
    """
    if isinstance(value, Mapping):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def read_uploaded(content: bytes, image_size: int = 64) -> Tensor | None:
    """The centre square of an image file, uint8 (3, S, S), or None if it is no image."""
    try:
        square = read_square(content, image_size, "crop")
    except Exception:  # Pillow raises whatever the bytes of a broken file lead it to
        return None
    return None if square is None else torch.from_numpy(np.moveaxis(square, 2, 0).copy())


# Denoising scrubber


def scrubber_frame(noise: Tensor, steps: Sequence[Step], i: int, count: int = 8) -> Image.Image:
    """How the first `count` images of a batch stand after i steps, beside their predicted ends.

    Args:
        noise: x_T, shape (N, C, H, W).
        steps: all that a sampler yielded.
        i: 0 (only noise) to len(steps) (the samples).
    """
    x = noise if i == 0 else steps[i - 1].x
    x0 = steps[min(i, len(steps) - 1)].x0
    left, right = (grid_image(images[:count], columns=4) for images in (x, x0))
    frame = Image.new("RGB", (left.width + right.width + 16, left.height + 22), "white")
    frame.paste(left, (0, 22))
    frame.paste(right, (left.width + 16, 22))
    text = ImageDraw.Draw(frame)
    now = f"x_t at t = {steps[i].t}" if i < len(steps) else "the samples"
    text.text((4, 2), now, "black", font_size=15)
    text.text((left.width + 20, 2), "x_0 as the network sees it now", "black", font_size=15)
    return frame


def denoising_scrubber(noise: Tensor, steps: Sequence[Step]) -> widgets.Widget:
    """Play the steps of a sampler, or move through them: x_t beside the predicted x_0.

    Args:
        noise: x_T, shape (N, C, H, W).
        steps: all that a sampler yielded.
    """
    frames = [png(scrubber_frame(noise, steps, i)) for i in range(len(steps) + 1)]
    picture = widgets.Image(value=frames[0], format="png")
    slider = widgets.IntSlider(0, min=0, max=len(steps), description="steps taken")
    play = widgets.Play(min=0, max=len(steps), interval=max(40, 4000 // len(frames)))
    widgets.jslink((play, "value"), (slider, "value"))

    def turn(change) -> None:
        picture.value = frames[change["new"]]

    slider.observe(turn, "value")
    return widgets.VBox([widgets.HBox([play, slider]), picture])


# Live view of a training run


def status_line(report: Report) -> str:
    """One line on how the run stands."""
    left = (report.steps - report.step) * report.seconds / report.step
    return (
        f"step {report.step} of {report.steps} · loss {report.loss:.4f} · "
        f"{report.images_per_second:.0f} images/s · {timedelta(seconds=round(left))} to go"
    )


def preview(trainer: Trainer, count: int) -> Image.Image:
    """What the averaged model draws now, in 20 steps of ddim: always from the same noise."""
    noises = islice(initial_noise(trainer.average, trainer.config.seed), count)
    noise = torch.stack(list(noises)).to(trainer.device)
    for step in ddim(trainer.average, noise, min(20, trainer.config.timesteps)):
        samples = step.x
    return grid_image(samples, columns=count)


def training_view(
    trainer: Trainer,
    reports: Iterable[Report] | None = None,
    samples: int = 8,
    sample_every: float = 10.0,
) -> Iterator[Report]:
    """Pass reports on, and show how the run goes on above them. The stop button ends it cleanly.

        for report in training_view(trainer): ...
        for report in training_view(trainer, record(trainer, "faces")): ...

    Args:
        trainer: whose run it is.
        reports: of the run: the trainer itself, or what `record` makes of it.
        samples: how many images to draw now and then; 0 for data that is no images.
        sample_every: seconds between these.
    """
    bar = widgets.IntProgress(trainer.step, 0, trainer.steps, layout={"width": "40em"})
    status, curve, drawn = widgets.HTML(), widgets.Image(), widgets.Image()
    display(widgets.VBox([bar, status, curve, drawn] if samples else [bar, status, curve]))
    seen: list[Report] = []
    shown = drawn_at = -float("inf")
    with stop_on_signals(trainer):
        for report in reports if reports is not None else trainer:
            seen.append(report)
            now, last = time.monotonic(), report.step == report.steps or trainer.stopping
            if last or now > shown + 1:
                bar.value, status.value = report.step, status_line(report)
                curve.value = loss_curve(seen)._repr_png_()
                shown = now
            if samples and (last or now > drawn_at + sample_every):
                drawn.value = png(preview(trainer, samples))
                drawn_at = time.monotonic()
            yield report
    if trainer.step < trainer.steps:
        status.value = (
            f"stopped after step {trainer.step} of {trainer.steps}: run the loop again to go on"
        )
