"""Widgets for the notebooks: schedule explorer, denoising scrubber, live view of a training run.

What they show is drawn by plain functions, as PNG bytes for one `widgets.Image`: replacing its
value redraws without flicker, in JupyterLab, Notebook 7 and Colab, and needs no extension but
ipywidgets (8, or 7.7, which Colab has).
"""

import io
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from html import escape

import ipywidgets as widgets
import numpy as np
import torch
from IPython.display import display
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_lib.diffusion import GaussianDiffusion
from diffusion_lib.errors import InputError
from diffusion_lib.explorer import schedule_code, schedule_figure
from diffusion_lib.images.files import read_square
from diffusion_lib.plots import grid_image, loss_curve, paper_and_ink
from diffusion_lib.samplers import Step
from diffusion_lib.sampling import sample
from diffusion_lib.schedules import SCHEDULES, NoiseSchedule
from diffusion_lib.stopping import stop_on_signals
from diffusion_lib.training import Report, Trainer

# Round numbers, because a slider with a logarithmic scale would turn 0.02 into 0.01995.
BETAS = [float(f"{m}e{e}") for e in range(-6, 0) for m in (1, 1.5, 2, 3, 5, 7)] + [0.9]


def png(picture: Image.Image) -> bytes:
    """A picture as the bytes that `widgets.Image` shows."""
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


# Schedule explorer


def schedule_explorer(pictures: Mapping[str, Tensor]) -> widgets.Widget:
    """Choose schedules and their settings, and see what they do to a picture.

    Args:
        pictures: by name, (C, H, W), uint8 or in [-1, 1]; more can be uploaded.
    """
    pictures = dict(pictures)
    whole = {"width": "auto", "flex": "0 0 auto"}  # as wide as its words
    chosen = [
        widgets.ToggleButton(name in ("linear", "cosine"), description=name, layout=whole)
        for name in SCHEDULES
    ]
    reset = widgets.Button(description="reset", icon="undo", layout=whole)
    timesteps = widgets.SelectionSlider(
        options=[2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000], value=1000, description="T"
    )
    start = widgets.SelectionSlider(options=BETAS[:-3], value=1e-4, description="beta_start")
    end = widgets.SelectionSlider(options=BETAS[12:], value=0.02, description="beta_end")
    s = widgets.FloatSlider(0.008, min=0, max=0.2, step=0.002, description="s (cosine)")
    s.readout_format = ".3f"
    t = widgets.FloatSlider(0.3, min=0, max=1, step=0.01, description="cursor t / T")
    name = widgets.Dropdown(options=list(pictures), description="picture")
    upload = widgets.FileUpload(accept="image/*", description="your own", layout=whole)
    figure = widgets.Image(format="png", layout={"max_width": "100%"})
    words = widgets.HTML()
    controls = (*chosen, timesteps, start, end, s, t, name)
    initial = [control.value for control in controls]

    def redraw(_=None) -> None:
        names = [button.description for button in chosen if button.value]
        settings = dict(
            timesteps=timesteps.value, beta_start=start.value, beta_end=end.value, s=s.value
        )
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
                words.value = f"<b>{escape(title)} is not an image that can be read</b>"
            else:
                pictures[title] = square
                name.options = list(pictures)
                name.value = title

    def put_back(_) -> None:
        for control, value in zip(controls, initial, strict=True):
            control.value = value

    for control in controls:
        control.observe(redraw, "value")
    upload.observe(add, "value")
    reset.on_click(put_back)
    redraw()
    # Rows that go on in the next one, where a window is narrow.
    columns = [[timesteps, t], [start, end, s], [name, upload]]
    boxes = [widgets.VBox(column) for column in columns]
    rows = [
        widgets.HBox(row, layout={"flex_flow": "row wrap"}) for row in ([*chosen, reset], boxes)
    ]
    return widgets.VBox([*rows, figure, words])


def uploaded_files(value: Sequence[dict] | Mapping[str, dict]) -> list[tuple[str, bytes]]:
    """Names and contents from the value of a `FileUpload`.

    A sequence of {"name", "content"} in ipywidgets 8; {name: {"content"}} in 7, which Colab has.
    """
    if isinstance(value, Mapping):
        return [(name, bytes(file["content"])) for name, file in value.items()]
    return [(file["name"], bytes(file["content"])) for file in value]


def read_uploaded(content: bytes, image_size: int = 64) -> Tensor | None:
    """The centre square of an image file, uint8 (3, S, S), or None if it is not an image."""
    try:
        square = read_square(content, image_size, "crop")
    except Exception:  # a broken file can raise anything
        return None
    return None if square is None else torch.from_numpy(np.moveaxis(square, 2, 0).copy())


# Denoising scrubber


def scrubber_frame(noise: Tensor, steps: Sequence[Step], i: int, count: int = 8) -> Image.Image:
    """The first `count` images of a batch after i steps, beside the predicted clean images.

    Args:
        noise: x_T, shape (N, C, H, W).
        steps: all that a sampler yielded.
        i: 0 (only noise) to len(steps) (the samples).
    """
    x = noise if i == 0 else steps[i - 1].x
    x0 = steps[min(i, len(steps) - 1)].x0
    left, right = (grid_image(images[:count], columns=4) for images in (x, x0))
    paper, ink = paper_and_ink()
    frame = Image.new("RGB", (left.width + right.width + 16, left.height + 22), paper)
    frame.paste(left, (0, 22))
    frame.paste(right, (left.width + 16, 22))
    text = ImageDraw.Draw(frame)
    now = f"x_t at t = {steps[i].t}" if i < len(steps) else "the samples"
    text.text((4, 2), now, ink, font_size=15)
    text.text((left.width + 20, 2), "predicted x_0", ink, font_size=15)
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
    """The state of the run in one line."""
    left = (report.steps - report.step) * report.seconds / report.step
    return (
        f"step {report.step} of {report.steps} · loss {report.loss:.4f} · "
        f"{report.images_per_second:.0f} images/s · {timedelta(seconds=round(left))} to go"
    )


def preview(trainer: Trainer, count: int) -> Image.Image:
    """Samples of the averaged model, in 20 steps of ddim, always from the same noise."""
    steps = min(20, trainer.config.timesteps)
    samples = sample(trainer.average, count, "ddim", steps, seed=trainer.config.seed)
    return grid_image(samples, columns=count)


def training_view(
    trainer: Trainer,
    reports: Iterable[Report] | None = None,
    samples: int = 8,
    sample_every: float = 10.0,
) -> Iterator[Report]:
    """Yield reports, and show the state of the run. The stop button ends it cleanly.

        for report in training_view(trainer): ...
        for report in training_view(trainer, record(trainer, "faces")): ...

    Args:
        trainer: the run to show.
        reports: the trainer itself (the default), or `record(trainer, ...)`.
        samples: how many images to draw now and then; 0 for data that are not images.
        sample_every: seconds between them.
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
            f"stopped after step {trainer.step} of {trainer.steps}: run the loop again to continue"
        )


# Guidance


def guidance_explorer(diffusion: GaussianDiffusion, count: int = 8) -> widgets.Widget:
    """Choose a label for each column and a scale: the same noise becomes what is asked for.

    Args:
        diffusion: a model with labels.
        count: images.
    """
    columns = [
        widgets.Dropdown(options=["any", *names], value="any", description=column)
        for column, names in diffusion.classes.items()
    ]
    scale = widgets.FloatSlider(2.0, min=0, max=8, step=0.5, description="scale")
    seed = widgets.IntSlider(0, min=0, max=20, description="seed")
    for control in (scale, seed):
        control.continuous_update = False
    picture = widgets.Image(format="png")

    def redraw(_=None) -> None:
        # A name alone might be one of another column.
        chosen = "+".join(f"{c.description}={c.value}" for c in columns if c.value != "any")
        how = dict(labels=chosen or None, guidance=scale.value, steps=10)
        images = sample(diffusion, count, seed=seed.value, **how)
        picture.value = png(grid_image(images, columns=count))

    for control in (*columns, scale, seed):
        control.observe(redraw, "value")
    redraw()
    controls = widgets.HBox([*columns, scale, seed], layout={"flex_flow": "row wrap"})
    return widgets.VBox([controls, picture])
