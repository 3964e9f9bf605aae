import json
import shutil

import numpy as np
import pytest

from keras_robust.evaluation import Report, write
from keras_robust.statistics import Proportion
from tests.evaluation.samples import N, report

pytestmark = pytest.mark.once


def test_union_is_the_worst_case_per_image():
    # Robust to Linf are images 0..99 and 0..89, to L2 20..119: to all 20..89.
    assert report(100, shift=20).union(32) == Proportion(70, N)


def test_files_are_read_back(tmp_path):
    first = report(100, skipped=["x.png cannot be read"], attack_warnings=["Few classes: ..."])
    write(first, tmp_path)
    content = json.loads((tmp_path / "report.json").read_text())
    assert (content["schema"], content["schema_version"]) == ("keras_robust.evaluation", 4)
    cell = content["results"][2]
    assert (cell["norm"], cell["eps"], cell["resolution"], cell["n_examples"]) == ("L2", 0.5, 32, N)
    assert cell["n_correct_after"] == {"clean": 150, "apgd-ce": 100}
    np.testing.assert_allclose(cell["robust_interval_95"], [0.4313, 0.5687], atol=1e-4)
    assert content["union"][0]["union_accuracy"] == 0.45
    assert content["settings"]["model"]["multiply_adds"] == {"32": 1024 * 10**6, "40": 1600 * 10**6}
    assert content["warnings"] == ["Few classes: ...", first.warnings[1]]

    again = Report.load(tmp_path / "report.json")
    assert again.settings == first.settings
    assert (again.warnings, again.images.skipped) == (first.warnings, first.images.skipped)
    for ours, theirs in zip(first.results, again.results):
        np.testing.assert_array_equal(ours.misclassified_at, theirs.misclassified_at)
        np.testing.assert_array_equal(ours.evaluations["apgd-ce"], theirs.evaluations["apgd-ce"])
        assert ours.accuracy_after == theirs.accuracy_after
    np.testing.assert_array_equal(again.gallery[0].pixels, first.gallery[0].pixels)
    assert not {"seconds", "time", "date"} & set(content)  # or two runs could not give the same file


def test_what_is_no_report(tmp_path):
    write(report(100), tmp_path)
    path = tmp_path / "report.json"
    path.write_text(path.read_text().replace('"schema_version": 4', '"schema_version": 1'))
    with pytest.raises(ValueError, match=r"report\.json cannot be read as a report: .*version 4, received .*version 1"):
        Report.load(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read as a report"):
        Report.load(path)
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match="cannot be read as a report"):
        Report.load(path)


def test_what_is_printed_begins_with_the_figures():
    shown = repr(report(100, attack_warnings=["Few <classes>"])).splitlines()
    assert shown[:2] == ["a <b> & c, 200 images", "32 px Linf 4/255: robust 50.0 % (43-57), clean 75.0 % (69-80)"]
    assert shown[-1] == "warning: Few <classes>"
    html = report(100, attack_warnings=["Few <classes>"])._repr_html_()
    assert "a &lt;b&gt; &amp; c, 200 images" in html
    assert "Few &lt;classes&gt;" in html
    assert html.count("<tr>") == 1 + 6
