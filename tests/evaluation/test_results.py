import json
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import Picture, Report, Result, pairs_table, table, write, write_comparison
from keras_robust.evaluation.reporting.svg import Series, chart
from keras_robust.statistics import Proportion

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the same code on all backends")

LINF, WIDE, L2 = kr.ThreatModel("Linf", 4 / 255), kr.ThreatModel("Linf", 8 / 255), kr.ThreatModel("L2", 0.5)
N = 200


def result(threat, resolution, clean, robust, shift=0):
    """Of images in a row the first `clean` are right, and `robust` of them, from `shift` on, stay so."""
    place = np.arange(N)
    broken_by = np.where(place < clean, 1, 0)
    broken_by[shift : shift + robust] = 2
    labels = place % 2
    return Result(
        threat,
        resolution,
        ("clean", "apgd-ce"),
        broken_by.astype(np.int16),
        np.where(broken_by > 0, labels, 1 - labels),
        np.where(broken_by > 1, labels, 1 - labels),
        np.where(broken_by == 1, threat.eps, 0).astype(np.float32),
        {"apgd-ce": np.full(N, 100)},
        {"apgd-ce": 0},
    )


def report(robust, name="a <b> & c", resolutions=(32, 40), threats=(LINF, WIDE, L2), shift=0, **changes):
    settings = {
        "model": {"name": name, "differentiable": True},
        "images": {"imagenet": False, "list": None},
        "attack": "short",
        "seed": 0,
        "backend": "tensorflow",
    }
    results = [
        result(threat, resolution, 150, robust - 10 * (threat == WIDE), shift * (threat == L2))
        for resolution in resolutions
        for threat in threats
    ]
    images = {
        "index": np.arange(N),
        "label": np.arange(N) % 2,
        "digest": np.arange(N).astype(np.uint64),
        "name": np.array([f"dog/{i}.png" for i in range(N)]),
    }
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    gallery = [Picture(LINF, 32, pixels, 0, 0, 1)] if LINF in threats else []
    costs = {resolution: resolution**2 * 10**6 for resolution in resolutions}
    whole = {"multiply_adds": costs, "gallery": gallery, "outputs": ["cat", "<dog>"], **changes}
    return Report(settings, results, images, **whole)


def test_table_holds_every_cell():
    lines = table({"clean training": report(20), "adversarial training": report(100)}).splitlines()
    assert len(lines) == 2 + 2 * 4
    assert lines[0].split("  ")[-1].strip() == "adversarial training"
    # Wilson's interval of 20 of 200 is 7 to 15 %, of 100 of 200 43 to 57 %, of 10 of 200 3 to 9 %.
    assert " ".join(lines[2].split()) == "32 Linf 4/255 75.0 % 10.0 % (7-15) 75.0 % 50.0 % (43-57)"
    assert " ".join(lines[5].split()) == "32 all 75.0 % 5.0 % (3-9) 75.0 % 45.0 % (38-52)"


def test_union_is_the_worst_case_per_image():
    # Robust to Linf are images 0..99 and 0..89, to L2 20..119: to all 20..89.
    assert report(100, shift=20).union(32) == Proportion(70, N)


def test_files_are_read_back(tmp_path):
    first = report(100, skipped=["x.png cannot be read"], doubts=["Few classes: ..."])
    write(first, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert (content["schema"], content["schema_version"]) == ("keras_robust.evaluation", 2)
    cell = content["results"][2]
    assert (cell["norm"], cell["eps"], cell["resolution"], cell["n_examples"]) == ("L2", 0.5, 32, N)
    assert cell["n_correct_after"] == {"clean": 150, "apgd-ce": 100}
    np.testing.assert_allclose(cell["robust_interval_95"], [0.4313, 0.5687], atol=1e-4)
    assert content["union"][0]["union_accuracy"] == 0.45
    assert content["multiply_adds"] == {"32": 1024 * 10**6, "40": 1600 * 10**6}
    assert content["warnings"] == ["Few classes: ...", first.warnings[1]]

    again = Report.load(tmp_path / "report.json")
    assert again.settings == first.settings
    assert (again.warnings, list(again.skipped)) == (first.warnings, list(first.skipped))
    for ours, theirs in zip(first.results, again.results):
        np.testing.assert_array_equal(ours.broken_by, theirs.broken_by)
        np.testing.assert_array_equal(ours.evaluations["apgd-ce"], theirs.evaluations["apgd-ce"])
        assert ours.accuracy_after == theirs.accuracy_after
    np.testing.assert_array_equal(again.gallery[0].pixels, first.gallery[0].pixels)
    assert not {"seconds", "time", "date"} & set(content)  # or two runs could not give the same file


def test_what_is_no_report(tmp_path):
    write(report(100), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(ValueError, match=r"report\.json cannot be read as a report: .*version 2, received .*version 1"):
        Report.load(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read as a report"):
        Report.load(path)
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as a report"):
        Report.load(path)


def test_pairs_are_tested_image_by_image():
    text = pairs_table({"a": report(100), "b": report(120), "c": report(60)}).splitlines()
    row = next(line for line in text if "Linf 4/255" in line)
    assert "+10.0 points" in row
    assert "20 : 0" in row
    assert row.endswith("p < 0.001")  # 2 / 2^20
    assert next(line for line in text if "clean" in line).endswith("0 : 0   p 1.000")
    assert "c against a, image by image" in text


def test_other_images_are_not_paired():
    other = report(100)
    other.images["digest"][3] += 1
    assert "not the same images" in pairs_table({"a": report(100), "b": other})
    assert "no resolution in common" in pairs_table({"a": report(100), "b": report(100, resolutions=(64,))})


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what a browser would fetch."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.text, self.counts = [], [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.fetched += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("resolutions", [(32,), (32, 40)])
@pytest.mark.parametrize("names", [("one <model>",), ("one <model>", "two")])
def test_page_is_whole_and_fetches_nothing(tmp_path, names, resolutions):
    reports = {name: report(100 + 20 * i, name, resolutions, doubts=["Doubt <i>"]) for i, name in enumerate(names)}
    html = write_comparison(reports, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert page.fetched
    assert all(each.startswith("data:image/") for each in page.fetched)
    assert not re.search(r"url\(|@import|<script|http", html)
    text = " ".join(page.text)
    for expected in (
        "Warnings",
        "Doubt <i>",
        "one <model>",
        "cat → ",
        "<dog>",
        "radii do not change",
        "adaptive attacks",
    ):
        assert expected in text
    assert page.counts["img"] == 3 * len(names)
    assert ("McNemar" in text) == (len(names) > 1)
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html

    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| 32 | 75.0 % (69-80) | 50.0 % (43-57) |" in markdown
    assert "**Warning.** Doubt <i>" in markdown


def test_page_of_models_that_have_little_in_common(tmp_path):
    reports = {"a": report(100), "b": report(90, resolutions=(64,), threats=(L2,), multiply_adds={64: None})}
    assert "not known" in write_comparison(reports, tmp_path).read_text()
    with pytest.raises(ValueError, match="at least one report"):
        write_comparison({}, tmp_path)


def test_points_of_a_chart_lie_where_they_should():
    points = [(32, Proportion(0, 10)), (64, Proportion(10, 10))]
    svg = chart("t", [Series("a", 0, points)], "x", [(32, "32"), (64, "64")])
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in re.search('points="(.*?)"', svg)[1].split())
    grid = [float(y) for y in re.findall(r'class="grid".*?y1="([\d.]+)"', svg)]
    assert (y0, y1) == (max(grid), min(grid))
    ticks = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">\d', svg)]
    assert [x0, x1] == ticks


def test_imagenet_without_the_list_is_said():
    from keras_robust.evaluation.reporting.tables import notes

    other = report(100)
    assert not any("RobustBench" in note for note in notes(other))
    other.settings["images"]["imagenet"] = True
    assert any("RobustBench" in note for note in notes(other))
    other.settings["images"]["list"] = "ids.txt"
    assert not any("RobustBench" in note for note in notes(other))


def test_figure_of_several_models(tmp_path):
    path = kr.evaluation.write_figure({"a": report(100), "b <c>": report(90)}, tmp_path / "figures" / "figure.svg")
    svg = ElementTree.parse(path).getroot()
    drawn = [each for each in svg if each.get("class") == "chart"]
    assert len(drawn) == 2 * 5  # pixels and multiply-adds; no attack, three threat models, all
    assert "multiply-adds (10⁹)" in "".join(drawn[-1].itertext())
    one = report(100, resolutions=(32,))
    with pytest.raises(ValueError, match="at least two resolutions"):
        kr.evaluation.write_figure({"a": one}, tmp_path / "f.svg")
