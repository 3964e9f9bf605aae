import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from keras_robust.evaluation import Report, write, write_comparison
from keras_robust.evaluation.reporting.page import page
from tests.evaluation.samples import L2, LINF, report

pytestmark = pytest.mark.once


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
    reports = {
        name: report(100 + 20 * i, name, resolutions, attack_warnings=["Doubt <i>"]) for i, name in enumerate(names)
    }
    html = write_comparison(reports, tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    assert page.fetched
    assert all(each.startswith("data:image/") for each in page.fetched)
    assert not re.search(r"url\((?!#)|@import|<script|http(?!://www.w3.org/)", html)
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
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html

    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| 32 | 75.0 % (69-80) | 50.0 % (43-57) |" in markdown
    assert "**Warning.** Doubt <i>" in markdown


def test_page_of_models_that_have_little_in_common(tmp_path):
    reports = {"a": report(100), "b": report(90, resolutions=(64,), threats=(L2,), multiply_adds=None)}
    assert "not known" in write_comparison(reports, tmp_path).read_text()
    with pytest.raises(ValueError, match="at least one report"):
        write_comparison({}, tmp_path)


def test_sections_that_have_nothing_to_say_are_not_there():
    plain = page({"plain": report(100, resolutions=(32,), threats=(LINF,))})
    for heading in ("against resolution", "against the radius", "against multiply-adds", "Image by image", "Warnings"):
        assert heading not in plain
    assert "<svg" not in plain
    full = page({"full": report(100)})
    for heading in ("against resolution", "against the radius"):
        assert heading in full
    # Models that cost the same at each resolution: the chart by cost would repeat the one by resolution.
    assert "against multiply-adds" not in page({"a": report(100), "b": report(90)})
    assert "against multiply-adds" in page({"a": report(100), "b": report(90, multiply_adds=2 * 10**6)})


def test_galleries_leave_no_holes():
    one = report(100, threats=(L2, LINF))
    for count, shown in ((1, 1), (2, 2), (3, 3), (5, 3), (6, 6)):
        html = page({"a": replace(one, gallery=one.gallery * count)})
        assert html.count('<figure class="card">') == shown


def test_the_same_report_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(report(100), tmp_path / name)
        write(Report.load(tmp_path / name), tmp_path / f"{name} again")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert {path.suffix for path in files} == {".html", ".json", ".md", ".npz", ".png", ".pdf"}
    for path in files:
        contents = {(tmp_path / name / path).read_bytes() for name in ("a", "b", "a again", "b again")}
        assert len(contents) == 1, path


def test_without_the_packages_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    write(report(100), tmp_path)
    assert "report.html was not written: the page needs jinja2: pip install 'keras-robust[report]'" in (
        capsys.readouterr().err
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gallery.npz",
        "per_image.npz",
        "report.json",
        "report.md",
    ]
