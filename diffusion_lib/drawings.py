"""Drawings of ideas, with no data in them: boxes, circles and arrows. All return a Picture.

A drawing is measured in inches, from its lower left corner, and is legible on a light and on a dark
page.
"""

from itertools import pairwise
from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from diffusion_lib.course import PAGES, Page
from diffusion_lib.plots import Picture

BLUE, ORANGE, GREEN, GREY = "#dbe9f6", "#fde3c8", "#dcf0d8", "#eeeeee"  # fills
INK, RED, SOFT = "#222222", "#b3261e", "#777777"  # lines and words

Point = tuple[float, float]


def two_processes() -> Picture:
    """What a diffusion model consists of: a fixed process to noise, and a learned one back."""
    axes = _sheet(10, 2.7)
    _box(axes, (1.2, 1.5), "image", 1.4, 0.8, GREEN)
    _box(axes, (8.8, 1.5), "noise", 1.4, 0.8, GREY)
    _box(axes, (5, 2.1), "add a little noise, 1,000 times", 3.6, 0.6)
    _box(axes, (5, 0.9), "predict the image, remove a little noise; repeat", 3.9, 0.6, ORANGE)
    _arrow(axes, (1.9, 1.75), (3.2, 2.1))
    _arrow(axes, (6.8, 2.1), (8.1, 1.75))
    _arrow(axes, (8.1, 1.25), (6.95, 0.9), color=RED)
    _arrow(axes, (3.05, 0.9), (1.9, 1.25), color=RED)
    _words(axes, (5, 2.55), "forward process: fixed")
    _words(axes, (5, 0.4), "reverse process: learned", color=RED)
    return axes.figure


def chain() -> Picture:
    """The Markov chain from an image to noise, q, and the one that leads back, p_theta."""
    axes = _sheet(10, 2.9)
    names = ["x_0", "x_1", r"\cdots", "x_{t-1}", "x_t", r"\cdots", "x_T"]
    places = [0.8 + 1.4 * i for i in range(len(names))]
    for x, name in zip(places, names, strict=True):
        if name != r"\cdots":
            _circle(axes, (x, 1.5), f"${name}$", GREEN if name == "x_0" else BLUE)
        else:
            _words(axes, (x, 1.5), f"${name}$", size=15)
    for i in range(len(names) - 1):
        left, right = places[i] + 0.38, places[i + 1] - 0.38
        _arrow(axes, (left, 1.62), (right, 1.62))
        _arrow(axes, (right, 1.38), (left, 1.38), color=RED)
    between = (places[3] + places[4]) / 2
    _words(axes, (between - 0.05, 1.92), r"$q(x_t \mid x_{t-1})$", size=11)
    _words(axes, (between, 1.02), r"$p_\theta(x_{t-1} \mid x_t)$", color=RED, size=11)
    _path(axes, [(0.8, 1.85), (0.8, 2.45), (places[4], 2.45), (places[4], 1.85)], dashed=True)
    _words(axes, (3.6, 2.65), r"the jump: $q(x_t \mid x_0)$", size=11)
    _words(axes, (places[0], 0.9), "image")
    _words(axes, (places[-1], 0.9), "noise")
    _words(axes, (0.4, 0.25), "black: forward process, fixed", align="left")
    _words(axes, (9.6, 0.25), "red: reverse process, learned", color=RED, align="right")
    return axes.figure


def unet() -> Picture:
    """The U-Net for 16-pixel images of page 03: levels, skip connections, bottleneck, time."""
    axes = _sheet(10.6, 6.1)
    middle = 5.3
    levels = [(4.4, 2.15, 32, 16, ""), (3.2, 1.85, 64, 8, " + attention")]
    levels += [(2.0, 1.55, 64, 4, " + attention")]
    for y, away, channels, size, attention in levels:
        text = f"2 blocks{attention}\n{channels} x {size} x {size}"
        for side in (-1, 1):
            _box(axes, (middle + side * away, y), text, 1.7, 0.62)
        start, end = middle - away + 0.85, middle + away - 0.85
        _arrow(axes, (start, y), (end, y), dashed=True, color=SOFT)
        _words(axes, (middle, y + 0.14), "2 skips", size=9, color=SOFT)
    for (y, away, *_), (below, nearer, *_) in pairwise(levels):
        x = (away + nearer) / 2
        _arrow(axes, (middle - x, y - 0.31), (middle - x, below + 0.31))
        _words(axes, (middle - x - 0.1, (y + below) / 2), "downsample", size=9, align="right")
        _arrow(axes, (middle + x, below + 0.31), (middle + x, y - 0.31))
        _words(axes, (middle + x + 0.1, (y + below) / 2), "upsample", size=9, align="left")
    _box(axes, (middle, 0.8), "bottleneck: block + attention, block\n64 x 4 x 4", 2.9, 0.62, ORANGE)
    _arrow(axes, (middle - 1.3, 1.69), (middle - 1.3, 1.11))
    _arrow(axes, (middle + 1.3, 1.11), (middle + 1.3, 1.69))
    for side, (inner, outer) in ((-1, ("stem", "$x_t$")), (1, ("head", r"prediction"))):
        _box(axes, (middle + side * 3.7, 4.4), inner, 0.8, 0.62, GREY)
        _words(axes, (middle + side * 4.75, 4.4), f"{outer}\n3 x 16 x 16")
        near, far = middle + side * 3.3, middle + side * 3.0
        begin, end = middle + side * 4.3, middle + side * 4.1
        outward = [((far, 4.4), (near, 4.4)), ((end, 4.4), (begin, 4.4))]
        for here, there in outward:
            _arrow(axes, *((here, there) if side == 1 else (there, here)))
    _words(axes, (0.9, 5.6), "$t$")
    _arrow(axes, (1.05, 5.6), (1.5, 5.6))
    _box(axes, (2.5, 5.6), "sinusoidal embedding\n32 numbers", 2.0, 0.6, GREEN)
    _arrow(axes, (3.5, 5.6), (3.9, 5.6))
    _box(axes, (4.85, 5.6), "linear, SiLU, linear\n128 numbers", 1.9, 0.6, GREEN)
    _arrow(axes, (5.8, 5.6), (6.3, 5.6))
    _words(axes, (6.4, 5.6), "time embedding: to every block", align="left")
    return axes.figure


def residual_block() -> Picture:
    """A residual block: two convolutions, the time embedding between them, the skip around."""
    axes = _sheet(10.6, 3.0)
    y = 1.75
    steps = ["norm", "SiLU", "conv\n3 x 3", "+", "norm", "SiLU", "conv 3 x 3\nstarts at 0", "+"]
    places = [1.3, 2.3, 3.3, 4.3, 5.3, 6.3, 7.6, 8.95]
    halves = [0.36, 0.36, 0.36, 0.2, 0.36, 0.36, 0.55, 0.2]
    _words(axes, (0.3, y), "$x$", size=13)
    before = 0.45
    for x, half, text in zip(places, halves, steps, strict=True):
        _arrow(axes, (before, y), (x - half, y))
        if text == "+":
            _circle(axes, (x, y), "+", GREY, radius=0.2)
        else:
            _box(axes, (x, y), text, 2 * half, 0.6, ORANGE if "0" in text else BLUE)
        before = x + half
    _arrow(axes, (before, y), (9.6, y))
    _words(axes, (9.7, y), "$x + f(x, t)$", size=12, align="left")
    _path(axes, [(0.6, y), (0.6, 2.5), (8.95, 2.5), (8.95, y + 0.2)], dashed=True)
    _words(axes, (4.8, 2.7), "skip: $x$ itself, or a 1 x 1 convolution where channels change")
    _words(axes, (1.0, 0.45), "time embedding")
    _arrow(axes, (1.75, 0.45), (2.1, 0.45))
    _box(axes, (2.5, 0.45), "SiLU", 0.8, 0.5, GREEN)
    _arrow(axes, (2.9, 0.45), (3.8, 0.45))
    _box(axes, (4.3, 0.45), "linear", 1.0, 0.5, GREEN)
    _arrow(axes, (4.3, 0.7), (4.3, y - 0.2))
    _words(axes, (4.45, 1.0), "one number a channel, the same for every pixel", align="left")
    return axes.figure


def loss_pipeline() -> Picture:
    """From an image, noise and a timestep to one number: the loss of a training step."""
    axes = _sheet(10.6, 3.1)
    for y, name, fill in ((2.5, "image $x_0$", GREEN), (1.55, r"noise $\epsilon$", BLUE)):
        _box(axes, (0.8, y), name, 1.3, 0.55, fill)
    _box(axes, (0.8, 0.6), "timestep $t$", 1.3, 0.55, GREY)
    formula = "add noise\n" + r"$\sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon$"
    _box(axes, (3.15, 2.1), formula, 2.1, 0.9)
    _arrow(axes, (1.45, 2.5), (2.1, 2.3))
    _arrow(axes, (1.45, 1.65), (2.1, 1.95))
    _path(axes, [(1.45, 0.6), (5.95, 0.6), (5.95, 1.65)])
    _arrow(axes, (3.15, 0.6), (3.15, 1.65))
    _arrow(axes, (4.2, 2.1), (5.3, 2.1))
    _words(axes, (4.75, 2.28), "$x_t$")
    _box(axes, (5.95, 2.1), "network\n" + r"$\theta$", 1.3, 0.9, ORANGE)
    _arrow(axes, (6.6, 2.1), (8.35, 2.1))
    _words(axes, (7.45, 2.3), r"$\epsilon_\theta(x_t, t)$")
    _box(axes, (9.35, 2.1), "mean squared\nerror", 2.0, 0.9, GREY)
    _path(axes, [(0.8, 1.28), (0.8, 1.08), (3.05, 1.08)], tip=False, dashed=True)
    _path(axes, [(3.25, 1.08), (5.85, 1.08)], tip=False, dashed=True)
    _path(axes, [(6.05, 1.08), (9.35, 1.08), (9.35, 1.65)], dashed=True)
    _words(axes, (7.6, 1.26), r"target: the noise $\epsilon$")
    _words(axes, (7.9, 0.5), "gradients of the error change the network", size=9, color=SOFT)
    return axes.figure


def ddim_step() -> Picture:
    """One step of DDIM as a triangle: to the prediction, part of the way back, and noise."""
    axes = _sheet(9.4, 5.2)
    clean, noisy, kept, there = (1.3, 1.2), (8.2, 2.6), (5.0, 1.95), (4.65, 3.3)
    _arrow(axes, (8.0, 2.68), (1.45, 1.35), color=SOFT, dashed=True)
    _arrow(axes, (1.45, 1.11), (4.95, 1.82), color="#1f6fb2", thick=True)
    _arrow(axes, kept, (4.69, 3.15), color=RED, thick=True)
    for place in (clean, noisy, kept, there):
        axes.plot(*place, "o", color=INK, markersize=8)
    _words(axes, (1.2, 0.75), r"$\hat x_0$, the prediction", size=12)
    _words(axes, (8.2, 3.0), "$x_t$", size=14)
    _words(axes, (4.65, 3.65), "$x_{t-1}$", size=14)
    _words(axes, (6.6, 2.75), "1  predict", size=11, color=SOFT)
    _words(axes, (3.7, 1.15), r"2  direction pointing to $x_t$", size=11, color="#1f6fb2")
    _words(axes, (4.65, 2.6), "3  noise", size=11, color=RED, align="right")
    _words(axes, (5.2, 1.75), r"$\sigma_t = 0$ ends here", size=11, align="left")
    _words(axes, (0.3, 4.75), "$x_{t-1} =$", size=14, align="left")
    _words(axes, (1.75, 4.75), r"$\sqrt{\bar\alpha_{t-1}}\;\hat x_0$", size=14)
    _words(axes, (2.5, 4.75), "$+$", size=14)
    term = r"$\sqrt{1-\bar\alpha_{t-1}-\sigma_t^2}\;\epsilon_\theta(x_t, t)$"
    _words(axes, (4.0, 4.75), term, size=14, color="#1f6fb2")
    _words(axes, (5.5, 4.75), "$+$", size=14)
    _words(axes, (6.0, 4.75), r"$\sigma_t\,z$", size=14, color=RED)
    _words(axes, (8.2, 0.5), "(not to scale)", size=9, color=SOFT)
    return axes.figure


def run_files() -> Picture:
    """A run of `train` that is killed and resumed, and the files it writes on the way."""
    axes = _sheet(10.6, 4.1)
    stages = [(1.1, "images", GREEN), (3.3, "epochs\n1, 2, ...", BLUE), (5.3, "killed", ORANGE)]
    stages += [(7.3, "resume,\nmore epochs", BLUE), (9.6, "end", GREEN)]
    for (x, text, fill), after in zip(stages, [*stages[1:], None], strict=True):
        _box(axes, (x, 3.4), text, 1.4, 0.7, fill)
        if after:
            _arrow(axes, (x + 0.7, 3.4), (after[0] - 0.7, 3.4))
    rows = [(2.3, "autosave.pth", "all that is needed to go on: every epoch, every ten minutes")]
    rows += [(1.5, "runs/NAME/", "loss, learning rate, speed; for TensorBoard, and stats.jsonl")]
    rows += [(0.7, "out/NAME_epoch_001.png, ...", "samples of every epoch")]
    for y, name, what in rows:
        axes.plot([2.6, 8.6], [y - 0.24] * 2, color=GREY)
        _words(axes, (2.6, y + 0.12), name, align="left", family="monospace", size=9.5)
        _words(axes, (2.6, y - 0.1), what, align="left", size=9, color=SOFT)
    _arrow(axes, (3.3, 3.05), (3.3, 2.6))
    _arrow(axes, (7.3, 2.6), (7.3, 3.05), color=RED)
    _words(axes, (7.4, 2.8), "restore", color=RED, align="left", size=9)
    _box(axes, (1.1, 2.2), "cache of\ndecoded images", 1.6, 0.7, GREY)
    _arrow(axes, (1.1, 3.05), (1.1, 2.55))
    _box(axes, (9.6, 2.35), "NAME.pth", 1.4, 0.5, GREY)
    _arrow(axes, (9.6, 3.05), (9.6, 2.6))
    return axes.figure


def course_map() -> Picture:
    """The pages: the main road in two rows, and the side pages between them."""
    axes = _sheet(10.8, 4.2)
    road = [page for page in PAGES if not page.is_side_page]
    sides = {page.number[:2]: page for page in PAGES if page.is_side_page}
    upper, lower = road[:7], road[7:]
    for y, row in ((3.55, upper), (0.55, lower)):
        for i, page in enumerate(row):
            x = 0.72 + 1.5 * i
            fill = GREEN if page is PAGES[0] else BLUE
            _box(axes, (x, y), _named(page), 1.16, 0.85, fill)
            if i:
                _arrow(axes, (x - 1.5 + 0.58, y), (x - 0.58, y))
            if side := sides.get(page.number):
                _box(axes, (x, 2.1), _named(side), 1.16, 0.95, GREY)
                _arrow(axes, (x, 3.125), (x, 2.575), dashed=True, color=SOFT)
    _path(axes, [(10.3, 3.55), (10.6, 3.55), (10.6, 1.3), (0.72, 1.3), (0.72, 0.975)])
    _words(axes, (0.2, 2.2), "grey: side pages,", align="left", size=9, color=SOFT)
    _words(axes, (0.2, 2.0), "not needed to go on", align="left", size=9, color=SOFT)
    return axes.figure


def _named(page: Page) -> str:
    """Number and title of a page, for a box."""
    return "\n".join([page.number, *wrap(page.title, 12)])


def _sheet(width: float, height: float) -> Axes:
    """An empty white sheet of so many inches, whose coordinates are inches."""
    figure = Picture(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return axes


def _words(
    axes: Axes,
    at: Point,
    text: str,
    size: float = 10,
    color: str = INK,
    align: str = "center",
    family: str = "sans-serif",
) -> None:
    axes.text(*at, text, fontsize=size, color=color, ha=align, va="center", family=family)


def _box(axes: Axes, at: Point, text: str, width: float, height: float, fill: str = BLUE) -> None:
    """A box around a middle."""
    style = dict(boxstyle="round,pad=0,rounding_size=0.08", facecolor=fill, edgecolor=INK)
    corner = (at[0] - width / 2, at[1] - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, **style))
    _words(axes, at, text)


def _circle(axes: Axes, at: Point, text: str, fill: str, radius: float = 0.35) -> None:
    axes.add_patch(Circle(at, radius, facecolor=fill, edgecolor=INK))
    _words(axes, at, text, size=13)


def _arrow(
    axes: Axes,
    start: Point,
    end: Point,
    color: str = INK,
    dashed: bool = False,
    bend: float = 0.0,
    thick: bool = False,
) -> None:
    line = dict(color=color, linestyle="--" if dashed else "-", linewidth=2.2 if thick else 1.2)
    style = dict(arrowstyle="-|>", mutation_scale=13, shrinkA=0, shrinkB=0)
    way = f"arc3,rad={bend}"
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=way, **style, **line))


def _path(axes: Axes, points: list[Point], dashed: bool = False, tip: bool = True) -> None:
    """A line around corners, with an arrow's tip at its end."""
    *before, last = points
    x, y = zip(*(before if tip else points), strict=True)
    axes.plot(x, y, color=INK, linestyle="--" if dashed else "-", linewidth=1.2)
    if tip:
        _arrow(axes, before[-1], last, dashed=dashed)
