"""Pictures of images, schedules and runs. Every function returns a matplotlib Figure."""

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from PIL.ExifTags import Base
from torch import Tensor
from torchvision.utils import make_grid

from diffusion_lib.images.account import BMP_MARK, MARK
from diffusion_lib.images.pixels import to_pixels
from diffusion_lib.samplers import Step

if TYPE_CHECKING:
    from diffusion_lib.reports import Report


class Picture(Figure):
    """A Figure that a notebook shows where it stands at the end of a cell.

    It is made without pyplot, which would show it a second time, and keep it in memory.
    """

    def save(self, path: str | Path) -> None:
        """Write the picture as .png, marked as made by this program."""
        self.savefig(path, format="png", metadata={"Software": MARK})

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png", bbox_inches="tight")
        return png.getvalue()


class Film:
    """Pictures in a row, which a notebook shows moving (as an animated PNG), again and again.

    Args:
        frames: of one size.
        seconds: how long it plays. The last frame then stands for a second and a half.
    """

    def __init__(self, frames: Sequence[Image.Image], seconds: float = 4.0):
        # One palette for all frames: an animated PNG has only one.
        rows = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
        for i, frame in enumerate(frames):
            rows.paste(frame, (0, i * frame.height))
        palette = rows.quantize(127, Image.Quantize.MEDIANCUT)
        palette.putpalette([*palette.getpalette()[: 3 * 127], 255, 255, 255])  # with pure white
        self.frames = [frame.quantize(palette=palette, dither=0) for frame in frames]
        each = round(1000 * seconds / len(frames))
        self.milliseconds = [each] * (len(frames) - 1) + [each + 1500]

    def save(self, file: str | Path | io.BytesIO, format: str | None = None) -> None:
        """Write the film; the name says whether as .gif or as animated .png."""
        first, *others = self.frames
        first.save(
            file,
            format,
            save_all=True,
            append_images=others,
            duration=self.milliseconds,
            loop=0,
            comment=MARK,  # of a .gif; a .png has none
        )

    def __repr__(self) -> str:
        return f"<Film of {len(self.frames)} frames>"

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.save(png, "png")
        return png.getvalue()


def paper_and_ink() -> tuple[str, str]:
    """Colours of matplotlib's style for the background and for words, as #rrggbb."""
    return to_hex(rcParams["figure.facecolor"]), to_hex(rcParams["text.color"])


def film(
    draw: Callable[..., None],
    frames: Iterable,
    figsize: tuple[float, float] = (4, 4),
    columns: int = 1,
    seconds: float = 4.0,
) -> Film:
    """A film of a plot: `draw(axes, frame)` is called for every frame, on empty axes.

    Args:
        draw: what to draw; with several columns it gets as many axes, in an array.
        frames: what to draw it for, one after the other.
        figsize: width and height in inches of 80 pixels.
        columns: axes side by side.
        seconds: how long it plays.
    """
    pictures = []
    for frame in frames:
        figure = Figure(figsize=figsize, dpi=80, layout="constrained")
        axes = figure.subplots(1, columns)
        draw(axes, frame)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pictures.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    return Film(pictures, seconds)


def image_film(frames: Sequence[Tensor], columns: int | None = None, seconds: float = 4.0) -> Film:
    """A film of grids: each frame is a batch of images (N, C, H, W), in [-1, 1] or uint8."""
    return Film([grid_image(images, columns) for images in frames], seconds)


def as_array(image: Tensor) -> np.ndarray:
    """(C, H, W) in [-1, 1], or uint8 -> (H, W, 3), uint8: as matplotlib and Pillow want it."""
    return to_pixels(image).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()


def image_grid(images: Tensor, columns: int | None = None, title: str = "") -> Picture:
    """Images (N, C, H, W), in [-1, 1] or uint8, side by side in rows of `columns`."""
    columns = columns or max(1, round(len(images) ** 0.5))
    grid = make_grid(to_pixels(images), nrow=columns, padding=1, pad_value=255)
    rows = -(-len(images) // columns)
    figure = Picture(figsize=(0.8 * columns, 0.8 * rows + 0.4 * bool(title)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(as_array(grid), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title)
    return figure


def image_strip(images: Sequence[Tensor], labels: Sequence[str], title: str = "") -> Picture:
    """Images (C, H, W) in one row, each with a label above it."""
    figure = Picture(figsize=(1.1 * len(images), 1.5 + 0.3 * bool(title)), layout="constrained")
    for axes, image, label in zip(
        figure.subplots(1, len(images), squeeze=False)[0], images, labels, strict=True
    ):
        axes.imshow(as_array(image), interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(label, fontsize=9)
    figure.suptitle(title)
    return figure


def image_rows(
    rows: Mapping[str, Sequence[Tensor]],
    labels: Sequence[str] = (),
    title: str = "",
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Picture:
    """Rows of images (C, H, W), each with its name before it, to be compared column by column.

    Args:
        rows: as many images in each.
        labels: above the columns, if any.
        title: above it all.
        notes: for each row a word below each of its images.
    """
    columns = len(next(iter(rows.values())))
    height = (1.3 if notes else 1.1) * len(rows) + 0.3 * bool(labels) + 0.3 * bool(title)
    figure = Picture(figsize=(columns + 0.8, height), layout="constrained")
    all_axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (name, images) in zip(all_axes, rows.items(), strict=True):
        for column, (axes, image) in enumerate(zip(row, images, strict=True)):
            axes.imshow(as_array(image), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            if notes:
                axes.set_xlabel(notes[name][column], fontsize=8)
        row[0].set_ylabel(name, fontsize=9)
    for axes, label in zip(all_axes[0], labels, strict=bool(labels)):
        axes.set_title(label, fontsize=9)
    figure.suptitle(title)
    return figure


def denoising_strip(noise: Tensor, steps: Sequence[Step], stages: int = 10) -> Picture:
    """How the first image of a batch was denoised: x_t and the predicted clean image.

    Args:
        noise: x_T, shape (N, C, H, W).
        steps: all that a sampler yielded.
        stages: pictures in a row, the noise first and the sample last.
    """
    chosen = np.linspace(0, len(steps), stages).round().astype(int)
    figure = Picture(figsize=(1.1 * stages + 0.9, 2.9), layout="constrained")
    rows = figure.subplots(2, stages, squeeze=False)
    for column, i in enumerate(chosen):
        # After i steps the image stands at the timestep that step i + 1 asks about.
        x = noise if i == 0 else steps[i - 1].x
        label = f"t = {steps[i].t}" if i < len(steps) else "sample"
        rows[0, column].imshow(as_array(x[0]), interpolation="nearest")
        rows[0, column].set_title(label, fontsize=9)
        rows[1, column].imshow(as_array(steps[min(i, len(steps) - 1)].x0[0]))
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
    rows[0, 0].set_ylabel("x_t")
    rows[1, 0].set_ylabel("predicted\nclean image")
    return figure


def loss_curve(reports: Sequence["Report"], title: str = "") -> Picture:
    """Loss over steps."""
    figure = Picture(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([report.step for report in reports], [report.loss for report in reports])
    axes.set(title=title, xlabel="step", ylabel="loss (mean squared error)", yscale="log")
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter("{x:g}")  # 0.2, where matplotlib would write 2 x 10^-1
    axes.grid(alpha=0.3, which="both")
    return figure


def denoising_film(noise: Tensor, steps: Sequence[Step], most: int = 16, frames: int = 60) -> Film:
    """How the first images of a batch emerge from noise: at most so many images, and frames."""
    states = [noise, *(step.x for step in steps)]
    chosen = np.linspace(0, len(steps), min(frames, len(states))).round().astype(int)
    return image_film([states[i][:most] for i in chosen])


def save_image(image: Tensor, path: str | Path, scale: int = 1) -> None:
    """Write one image (C, H, W) in [-1, 1], each pixel as scale x scale pixels; the name says in
    which format.
    """
    image = image.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    array = to_pixels(image).permute(1, 2, 0).cpu().numpy()
    save_marked(Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array), path)


def grid_image(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images (N, C, H, W) as one picture, small ones enlarged to at least 64 pixels."""
    columns = columns or max(1, round(len(images) ** 0.5))
    scale = -(-64 // images.shape[-1])  # rounded up
    large = to_pixels(images).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return Image.fromarray(as_array(make_grid(large, nrow=columns, padding=2, pad_value=255)))


def save_grid(images: Tensor, path: str | Path, columns: int | None = None) -> None:
    """Write images as one picture, small ones enlarged to at least 64 pixels."""
    save_marked(grid_image(images, columns), path)


def save_marked(picture: Image.Image, path: str | Path) -> None:
    """Write a picture with a word in it by which it is known to be no training image."""
    exif = Image.Exif()
    exif[Base.Software] = MARK
    content = io.BytesIO()
    format = Image.registered_extensions().get(Path(path).suffix.lower())
    picture.save(content, format, quality=95, exif=exif)
    content = bytearray(content.getvalue())
    if content.startswith(b"BM"):  # a .bmp has no Exif
        content[6:10] = BMP_MARK
    Path(path).write_bytes(content)


def save_rows(rows: Mapping[str, Tensor], path: str | Path) -> None:
    """Write images (N, C, H, W), each row of N with its name before it, as one picture."""
    columns = len(next(iter(rows.values())))
    grid = grid_image(torch.cat(list(rows.values())), columns)
    names = [textwrap.shorten(name, 40, placeholder="...") for name in rows]
    font = ImageFont.load_default(14)
    margin = 12 + round(max(map(font.getlength, names)))
    picture = Image.new("RGB", (margin + grid.width, grid.height), "white")
    picture.paste(grid, (margin, 0))
    draw = ImageDraw.Draw(picture)
    for row, name in enumerate(names):
        middle = (row + 0.5) * grid.height / len(rows)
        draw.text((margin - 6, middle), name, "black", font, anchor="rm")
    save_marked(picture, path)
