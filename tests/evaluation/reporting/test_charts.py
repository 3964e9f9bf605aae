import re
from xml.etree import ElementTree

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation.reporting import charts
from keras_robust.evaluation.reporting.charts import Line, Panel
from keras_robust.statistics import Proportion
from tests.evaluation.samples import L2, LINF, report

pytestmark = pytest.mark.once


def test_points_of_a_panel_lie_where_they_should():
    points = [(32.0, Proportion(0, 10)), (64.0, Proportion(10, 10))]
    figure = charts.draw([Panel("t", "x", [Line("a", 0, points)], [(32.0, "32"), (64.0, "64")])])
    (axes,) = figure.axes
    (line, _, (bars,)) = axes.containers[0]
    np.testing.assert_array_equal(line.get_xydata(), [[32, 0], [64, 100]])
    # Wilson's intervals of 0 and 10 of 10: 0 to 27.8 %, 72.2 to 100 %.
    heights = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(heights, [[0, 27.75], [72.25, 100]], atol=0.01)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["32", "64"]


def test_panels_by_radius_start_without_attack():
    (panel,) = charts.panels_by_radius({"a": report(100)})
    assert (panel.title, [line.name for line in panel.lines]) == ("Linf", ["32 px", "40 px"])
    assert [(round(x), share.value) for x, share in panel.lines[0].points] == [(0, 0.75), (4, 0.5), (8, 0.45)]


def test_panels_by_resolution_of_one_and_of_several_models():
    assert [panel.title for panel in charts.panels_by_resolution({"a": report(100)})] == ["Linf", "L2"]
    several = charts.panels_by_resolution({"a": report(100), "b": report(90, threats=(LINF,))})
    assert [panel.title for panel in several] == [
        "no attack",
        "Linf 4/255",
        "Linf 8/255",
        "L2 0.5",
        "all threat models",
    ]
    assert [line.name for line in several[3].lines] == ["a"]
    assert not charts.panels_by_resolution({"a": report(100, resolutions=(32,), threats=(L2,))})


def test_inline_charts_take_the_colours_of_the_page():
    svg = charts.inline_svg(charts.panels_by_resolution({"a": report(100), "$b$ <c> &": report(90)})[1])
    ElementTree.fromstring(svg)
    assert "var(--c0)" in svg
    assert "var(--soft)" in svg
    assert not re.search(r"#[0-9a-f]{6}", svg.replace("#000000", ""))
    assert "Linf 4/255" in svg


def test_figure_of_several_models(tmp_path):
    path = kr.evaluation.write_figure(
        {"a": report(100), "b <c> $d$": report(90, multiply_adds=2 * 10**6)}, tmp_path / "figures" / "figure.svg"
    )
    text = "".join(ElementTree.parse(path).getroot().itertext())
    for expected in ("b <c> $d$", "multiply-adds (10⁹)", "resolution in pixels", "no attack", "all threat models"):
        assert expected in text
    assert text.count("accuracy (%)") == 2 * 5
    for suffix in (".png", ".pdf"):
        assert kr.evaluation.write_figure({"a": report(100)}, tmp_path / f"f{suffix}").stat().st_size > 1000
    with pytest.raises(ValueError, match="at least two resolutions"):
        kr.evaluation.write_figure({"a": report(100, resolutions=(32,))}, tmp_path / "f.svg")
    with pytest.raises(ValueError, match=r"must end in \.svg, \.png or \.pdf; received"):
        kr.evaluation.write_figure({"a": report(100)}, tmp_path / "f.jpg")
