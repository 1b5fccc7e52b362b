"""The picture of the schedule explorer: curves of schedules, and what they do to an image."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_lib.images.pixels import to_images
from diffusion_lib.plots import as_array, paper_and_ink
from diffusion_lib.schedules import SCHEDULES, NoiseSchedule

COLORS = {name: f"C{i}" for i, name in enumerate(SCHEDULES)}  # always the same for a name


def schedule_figure(schedules: Sequence[NoiseSchedule], picture: Tensor, t: float) -> Image.Image:
    """Curves of schedules, and an image noised by each.

    Args:
        schedules: to compare.
        picture: (C, H, W), uint8 or in [-1, 1].
        t: position of the cursor, t / T, 0 to 1.
    """
    curves = draw_curves(schedules, t)
    strips = draw_strips(schedules, to_images(picture), t)
    together = Image.new("RGB", (curves.width, curves.height + strips.height), paper_and_ink()[0])
    together.paste(curves, (0, 0))
    together.paste(strips, (0, curves.height))
    return together


class Panel(NamedTuple):
    """A plot of the explorer. Its limits are fixed, so that only the curves move."""

    attribute: str
    title: str
    limits: tuple[float, float]
    scale: str = "linear"


PANELS = (
    Panel("betas", "beta: variance of the noise of a step", (1e-6, 1.5), "log"),
    Panel("alpha_bars", "alpha_bar: variance of the image left", (-0.02, 1.02)),
    Panel("log_snr", "log signal-to-noise ratio, cut at -22", (-22, 15)),
)


@lru_cache(maxsize=1)
def empty_curves() -> tuple[FigureCanvasAgg, object, list[Line2D]]:
    """The panels without curves: their canvas, its pixels, and one line for each panel.

    Drawing the axes takes nearly all the time of a plot, so this is done only once.
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
            fractions = np.linspace(0, 1, schedule.timesteps)
            line.set(data=(fractions, getattr(schedule, panel.attribute).numpy()), linewidth=1.5)
            line.set_color(COLORS[schedule.name])
            line.axes.draw_artist(line)
        line.set(data=([t, t], panel.limits), color=rcParams["text.color"], linewidth=0.8)
        line.axes.draw_artist(line)
    curves = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    legend = ImageDraw.Draw(curves)
    for i, schedule in enumerate(schedules):
        # In the lower left of the panel of alpha_bars, where there are no curves.
        place = (lines[1].axes.bbox.x0 + 8, 185 - 15 * (len(schedules) - i))
        legend.text(place, schedule.name, to_hex(COLORS[schedule.name]), font_size=12)
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
    fractions = [*np.linspace(0, 1, stages), t]
    left, pitch = 70, side + 2
    paper, ink = paper_and_ink()
    strips = Image.new("RGB", (880, 36 + pitch * len(schedules)), paper)
    text = ImageDraw.Draw(strips)
    columns = [left + pitch * i for i in range(stages)] + [left + pitch * stages + 16]
    for x, fraction in zip(columns, fractions, strict=True):
        text.text((x + side / 2, 18), f"{fraction:.2f}", ink, anchor="mm", font_size=12)
    text.text((left - 8, 18), "t / T", ink, anchor="rm", font_size=12)
    for row, schedule in enumerate(schedules):
        y = 30 + pitch * row
        color = to_hex(COLORS[schedule.name])
        text.text((left - 8, y + side / 2), schedule.name, color, anchor="rm", font_size=12)
        steps = torch.tensor([round(fraction * (schedule.timesteps - 1)) for fraction in fractions])
        stack = image.expand(len(steps), -1, -1, -1)  # (stages + 1, C, H, W)
        for x, noised in zip(
            columns, schedule.add_noise(stack, steps, noise.expand_as(stack)), strict=True
        ):
            small = Image.fromarray(as_array(noised))
            strips.paste(small.resize((side, side), Image.Resampling.NEAREST), (x, y))
    # The cursor, on the scale of the pictures' centres.
    x = left + side / 2 + t * pitch * (stages - 1)
    text.polygon([(x - 5, 2), (x + 5, 2), (x, 10)], fill=ink)
    frame = (columns[-1] - 2, 28, columns[-1] + side + 1, 30 + pitch * len(schedules) - 1)
    text.rectangle(frame, outline=ink)
    return strips


def schedule_code(
    names: Sequence[str],
    timesteps: int = 1000,
    beta_start: float = 1e-4,
    beta_end: float = 0.02,
    s: float = 0.008,
) -> str:
    """The lines of code that make these schedules, with the arguments that are not the defaults."""
    lines = []
    for name in names:
        arguments = [repr(name), f"timesteps={timesteps}"]
        if name == "cosine":
            arguments += [f"s={s:.4g}"] if s != 0.008 else []
        elif name != "straight":
            arguments += [f"beta_start={beta_start:.4g}"] if beta_start != 1e-4 else []
            arguments += [f"beta_end={beta_end:.4g}"] if beta_end != 0.02 else []
        lines.append(f"NoiseSchedule({', '.join(arguments)})".replace("'", '"'))
    return "\n".join(lines)
