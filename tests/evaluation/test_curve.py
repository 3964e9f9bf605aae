"""The whole curve of robust accuracy: distances of a linear model in closed form, and what a report makes of them."""

import json
import math

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.attacks.result import Curve
from keras_robust.evaluation import Report, evaluate
from keras_robust.evaluation.reporting import charts
from tests.evaluation.problem import WEIGHTS, Flat, linear_model

pytestmark = pytest.mark.once

LINF, ALL_LINF, ALL_L2 = kr.ThreatModel("Linf", 0.01), kr.ThreatModel("Linf", None), kr.ThreatModel("L2", None)
N = 23


def _attacks():
    return [
        kr.attacks.APGD(kr.ThreatModel("L2", 9.0), n_iter=3, returns="misclassified"),
        kr.attacks.FMN("L2", n_iter=60),
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    evaluate(linear_model(), Flat(N), [LINF, ALL_LINF, ALL_L2], [8], _attacks(), batch_size=16, out=out, verbose=False)
    return Report.load(out)


def _distances(report, norm):
    margins = Flat(N).margins()[report.images.index]
    reach = {"Linf": np.abs(WEIGHTS).sum(), "L2": np.linalg.norm(WEIGHTS) / 8}[norm]
    return np.maximum(margins, 0) / reach


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_curve_is_that_of_the_closed_form(report, norm):
    expected = _distances(report, norm)
    found = report.curve(norm).distances
    assert (found >= expected * (1 - 1e-4) - 2e-6).all()  # of margins that are a rounding
    np.testing.assert_allclose(found, expected, rtol=0.02)
    for eps in (0.0, 0.5 * expected.max(), expected.max() * 1.1):
        assert abs(report.curve(norm).at(eps).successes - (expected > eps).sum()) <= 1
    assert report.curve(norm).at(math.inf).successes == 0


def test_attacks_in_balls_lie_on_the_curve(report):
    assert report.threats == [LINF]
    assert report.norms == ["Linf", "L2"]
    share = report[LINF, 8].robust
    assert report.curve("Linf").at(LINF.eps) == share
    assert report.union(8) == share
    # Those that look for the nearest point run in the ball, too, and stop there.
    assert list(report[LINF, 8].stages) == ["clean", "apgd-ce", "fmn"]
    assert list(report[ALL_L2, 8].stages) == ["clean", "fmn"]


def test_propagations_are_kept(report):
    clean = report[ALL_L2, 8].misclassified_at > 0
    np.testing.assert_array_equal(report[ALL_L2, 8].propagations, 120 * clean)


def test_the_file_is_json_that_knows_no_infinity(report, tmp_path):
    content = json.loads(report.write_json(tmp_path).read_text(), parse_constant=pytest.fail)
    linf, l2 = content["curves"]
    assert (linf["norm"], l2["norm"], linf["resolution"]) == ("Linf", "L2", 8)
    assert linf["robust_accuracy"][0] == report[LINF, 8].clean_accuracy
    assert linf["robust_accuracy"][-1] == 0.0
    assert (np.diff(linf["robust_accuracy"]) <= 0).all()
    low, high = np.transpose(linf["interval_95"])
    assert ((low <= linf["robust_accuracy"]) & (linf["robust_accuracy"] <= high)).all()
    again = Report.load(tmp_path)
    np.testing.assert_array_equal(again.curve("L2").distances, report.curve("L2").distances)


def test_a_picture_for_each_norm(report):
    linf, l2 = charts.panels_by_radius({report.name: report})
    assert [linf.title, l2.title] == ["Linf", "L2"]
    assert [line.name for line in linf.lines] == ["8 px", "8 px, attacks in balls"]
    assert linf.lines[1].points[1] == (LINF.eps * 255, report[LINF, 8].robust)
    assert len(l2.lines) == 1
    both = charts.panels_by_radius({"a": report, "b": report})
    assert [line.name for line in both[0].lines] == ["a", "b"]
    assert charts.draw(both)


def test_runs_go_on_where_they_stopped(tmp_path, report):
    settings = (Flat(N), [ALL_L2], [8], [kr.attacks.FMN("L2", n_iter=5), kr.attacks.FMN("L2", n_iter=30)])
    options = {"batch_size": 16, "verbose": False}
    whole = evaluate(linear_model(), *settings, **options)
    evaluate(linear_model(), *settings, out=tmp_path, **options)
    again = evaluate(linear_model(), *settings, out=tmp_path, **options)
    np.testing.assert_array_equal(whole.curve("L2").distances, again.curve("L2").distances)
    first = evaluate(linear_model(), *settings[:3], settings[3][:1], **options)
    assert (whole.curve("L2").distances <= first.curve("L2").distances).all()


def test_versions_of_autoattack_have_their_counterpart(tmp_path):
    suite = kr.evaluation.attack_suites.attack_suite(linear_model(), 2, ALL_L2, "standard", 16, 0)
    assert list(suite.attacks) == ["fmn", "ddn", "minimal-apgd-margin"]
    x, y = np.full((2, 8, 8, 3), 0.5, "float32") + np.float32([[[[0.05]]], [[[-0.03]]]]), np.array([1, 0])
    distances = suite.result(keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)).distances
    reach = np.linalg.norm(WEIGHTS) / 8
    np.testing.assert_allclose(distances, np.array([0.05, 0.03]) * WEIGHTS.sum() / reach, rtol=1e-3)
    with pytest.raises(ValueError, match="attack must hold one that looks for the nearest point"):
        evaluate(linear_model(), Flat(N), [ALL_L2], [8], _attacks()[:1], verbose=False)


def test_a_curve_needs_a_threat_without_a_bound(report):
    with pytest.raises(ValueError, match="norm must be that of a threat model without a bound"):
        report.curve("L1")
    with pytest.raises(ValueError, match="received 'L2' and 16"):
        report.curve("L2", 16)


def test_a_curve_of_nothing_found_is_level():
    curve = Curve("L2", np.array([0.0, np.inf, np.inf, np.inf]))
    assert curve.end == 0.0
    assert curve.at(100.0).value == 0.75
