"""Plain charts of numbers: curves, histograms, bars, points in the plane. All return a Picture.

Several panels are several dictionaries, each with the keywords of the function for one panel.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import rcParams
from matplotlib.axes import Axes
from torch import Tensor

from diffusion_lib.plots import Picture

Numbers = Tensor | Sequence[float]


def array(numbers: Numbers) -> np.ndarray:
    """As matplotlib wants it, wherever it is."""
    return torch.as_tensor(numbers).detach().cpu().numpy()


def curves(
    x: Numbers,
    lines: Mapping[str, Numbers],
    title: str = "",
    style: Mapping[str, str] | None = None,
    **settings,
) -> Picture:
    """Curves over one x, with a legend.

    Args:
        x: positions, (K,).
        lines: name: values, (K,).
        title: above it.
        style: name: a format of matplotlib, such as "o" for dots or "--".
        settings: of `Axes.set`: xlabel, ylabel, yscale="log", ylim, ...
    """
    return panels([{"x": x, "lines": lines, "title": title, "style": style, **settings}])


def panels(charts: Sequence[Mapping], height: float = 3.2, title: str = "") -> Picture:
    """Charts side by side; each is the arguments of `curves`, of `histograms` or of `bars` by
    name: {"x": ..., "lines": ...}, {"values": ...} or {"heights": ...}.
    """
    width = min(11.5, 5.2 * len(charts) + 0.8)
    figure = Picture(figsize=(width, height), layout="constrained")
    for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
        draw = next(draw for key, draw in DRAW.items() if key in chart)
        draw(axes, **chart)
    figure.suptitle(title)
    return figure


def histograms(
    values: Mapping[str, Numbers],
    bins: int | Sequence[float] = 60,
    title: str = "",
    lines: Mapping[str, tuple[Numbers, Numbers]] | None = None,
    **settings,
) -> Picture:
    """Histograms as densities, over each other; `lines` are curves (x, density) above them."""
    chart = {"values": values, "bins": bins, "title": title, "densities": lines, **settings}
    return panels([chart])


def bars(heights: Mapping[str, float], title: str = "", **settings) -> Picture:
    """Horizontal bars, the first on top; a value may be (middle, lowest, highest)."""
    return panels([{"heights": heights, "title": title, **settings}], 0.35 * len(heights) + 1.2)


def points(
    sets: Mapping[str, Tensor],
    title: str = "",
    behind: Tensor | None = None,
    limit: float = 2.5,
    arrows: Mapping[str, Tensor] | None = None,
) -> Picture:
    """Points in the plane, (N, 2), a panel for each set.

    Args:
        sets: title of the panel: its points.
        title: above it all.
        behind: points drawn in grey in every panel.
        limit: the axes go from -limit to limit.
        arrows: for a set, an arrow (N, 2) that starts at each of its points.
    """
    width = min(11.5, 3.1 * len(sets))
    figure = Picture(figsize=(width, width / len(sets) + 0.5), layout="constrained")
    all_axes = figure.subplots(1, len(sets), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (name, x) in zip(all_axes, sets.items(), strict=True):
        x = array(x)
        if behind is not None:
            axes.scatter(*array(behind).T, s=2, color="lightgrey")
        if arrows and name in arrows:
            axes.quiver(
                *x.T,
                *array(arrows[name]).T,
                angles="xy",
                scale_units="xy",
                scale=1,
                color=rcParams["text.color"],
            )
        else:
            axes.scatter(*x.T, s=2)
        axes.set(title=name, aspect="equal", xlim=(-limit, limit), ylim=(-limit, limit))
    figure.suptitle(title)
    return figure


def _curves(axes: Axes, x: Numbers, lines: Mapping, title: str = "", style=None, **settings):
    for name, y in lines.items():
        axes.plot(array(x), array(y), (style or {}).get(name, "-"), label=name)
    _finish(axes, title, settings, legend=len(lines) > 1)
    if settings.get("xscale") == "log" and len(x) <= 10:  # a few positions: name them, and no other
        axes.set_xticks(array(x), [f"{value:g}" for value in x])
        axes.minorticks_off()


def _histograms(axes: Axes, values: Mapping, bins=60, title: str = "", densities=None, **settings):
    for name, x in values.items():
        axes.hist(array(x), bins, density=True, alpha=0.6, label=name)
    for name, (x, y) in (densities or {}).items():
        axes.plot(array(x), array(y), label=name)
    _finish(axes, title, settings, legend=len(values) + len(densities or {}) > 1)


def _bars(axes: Axes, heights: Mapping, title: str = "", **settings):
    rows = [h if isinstance(h, tuple) else (h, h, h) for h in heights.values()]
    middle, low, high = np.array(rows, dtype=float).T
    error = (middle - low, high - middle)
    axes.barh(list(heights), middle, xerr=error, ecolor=rcParams["text.color"], alpha=0.8)
    axes.invert_yaxis()
    _finish(axes, title, settings, legend=False)


def _finish(axes: Axes, title: str, settings: Mapping, legend: bool):
    axes.set(title=title, **settings)
    axes.grid(alpha=0.3)
    if legend:
        axes.legend(fontsize=8)


DRAW = {"lines": _curves, "values": _histograms, "heights": _bars}
