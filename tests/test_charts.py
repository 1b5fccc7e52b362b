"""Charts show the numbers that they are given, with the labels that they are given."""

import numpy as np
import pytest
import torch

from diffusion_lib import charts

X = torch.linspace(0, 1, 5)


def names(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_curves_are_the_numbers_and_have_their_labels():
    (axes,) = charts.curves(
        X, {"a": X, "b": X**2}, "Two", {"b": "o"}, xlabel="x", yscale="log"
    ).axes
    for line, values in zip(axes.get_lines(), (X, X**2), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)
    assert names(axes) == ["a", "b"]
    assert axes.get_lines()[1].get_marker() == "o"
    assert (axes.get_title(), axes.get_xlabel(), axes.get_yscale()) == ("Two", "x", "log")


def test_a_single_curve_needs_no_legend_and_may_need_a_gradient():
    (axes,) = charts.curves([1, 2], {"a": torch.ones(2, requires_grad=True)}).axes
    assert axes.get_legend() is None


def test_a_histogram_is_a_density_below_its_curves():
    values = torch.tensor([0.0, 0.1, 0.9, 1.0])
    figure = charts.histograms({"v": values}, bins=2, lines={"one": (X, torch.ones(5))})
    (axes,) = figure.axes
    assert sum(bar.get_height() * bar.get_width() for bar in axes.patches) == pytest.approx(1)
    assert names(axes) == ["one", "v"] or names(axes) == ["v", "one"]


def test_bars_have_the_first_on_top_and_error_bars_from_lowest_to_highest():
    (axes,) = charts.bars({"first": (2.0, 1.0, 4.0), "second": 3.0}, xlabel="distance").axes
    assert [bar.get_width() for bar in axes.patches] == [2, 3]
    assert axes.yaxis_inverted() and axes.get_xlabel() == "distance"
    (segments,) = (c.get_segments() for c in axes.collections)
    assert [segment[:, 0].tolist() for segment in segments] == [[1, 4], [3, 3]]


def test_points_have_a_panel_each_with_what_is_behind_them():
    one, two, behind = torch.rand(3, 2), torch.rand(4, 2), torch.rand(7, 2)
    figure = charts.points({"one": one, "two": two}, behind=behind, arrows={"two": two})
    first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["one", "two"]
    np.testing.assert_allclose(first.collections[1].get_offsets(), one)
    np.testing.assert_allclose(first.collections[0].get_offsets(), behind)
    np.testing.assert_allclose(np.stack([second.collections[1].U, second.collections[1].V], 1), two)


def test_panels_stand_side_by_side_in_order():
    figure = charts.panels(
        [{"x": X, "lines": {"a": X}}, {"values": {"v": X}}, {"heights": {"h": 1.0}}], title="All"
    )
    assert [len(axes.get_lines()) for axes in figure.axes[:1]] == [1]
    assert [len(axes.patches) > 0 for axes in figure.axes] == [False, True, True]
    assert figure.get_suptitle() == "All"


def test_a_few_positions_on_a_logarithmic_axis_are_named_themselves():
    (axes,) = charts.curves([6, 10, 20, 40], {"a": [4, 3, 2, 1]}, xscale="log").axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["6", "10", "20", "40"]
    assert not len(axes.xaxis.get_minorticklocs())
