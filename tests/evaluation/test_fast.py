"""The estimating version of AutoAttack in an evaluation: one report, however it was run, that never says a number."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.attacks import versions
from keras_robust.attacks.sampling import SamplingPlan
from keras_robust.evaluation import Report, evaluate, merge, pairs_table, render, table, write_comparison
from keras_robust.robustness import robustness_rows
from tests.evaluation.problem import Flat, linear_model

pytestmark = pytest.mark.once

N, LINF, L2 = 60, kr.ThreatModel("Linf", 0.01), kr.ThreatModel("L2", 0.2)
FILES = ("report.json", "per_image.npz", "report.md", "report.html")


@pytest.fixture(scope="module")
def model():
    return linear_model()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A version whose cheap attack goes part of the way, and whose costly one finds all on a linear model."""
    settings = {"loss": "ce", "random_start": False}
    changes = {"apgd-t-first": {**settings, "n_iter": 1}, "apgd-t": {**settings, "n_iter": 3}}
    monkeypatch.setitem(versions.VERSIONS, "fast", changes)
    monkeypatch.setitem(versions.PLANS, "fast", SamplingPlan({"apgd-t-first": "apgd-t"}, 0.1, 0.4))


def run(model, n=N, attack="fast", **options):
    options = {"batch_size": 20, "verbose": False, **options}
    return evaluate(model, Flat(n), [LINF, L2], [8], attack, **options)


@pytest.fixture(scope="module")
def exact(model):
    attack = kr.attacks.APGD(LINF, n_iter=3, returns="misclassified")
    return run(model, attack=[attack], name="exact")


def test_it_is_an_estimate_of_what_is_known_in_closed_form(model):
    report, source = run(model), Flat(N)
    for threat in (LINF, L2):
        result = report[threat, 8]
        truth = source.robust(threat, 8)[report.images.index]
        known = result.sample.drawn
        assert known.sum() < N
        np.testing.assert_array_equal(result.is_unbroken[known], truth[known])
        low, high = result.robust.interval
        assert low <= truth.mean() <= high
        assert result.robust.is_estimate
        assert [share.is_estimate for share in result.shares.values()] == [False, False, True]
        assert (result.evaluations["apgd-t"][~known] == 0).all()
        for name in ("robust_accuracy", "is_robust", "curve"):
            with pytest.raises(ValueError, match=f"{name} is not known: "):
                getattr(result, name)
        assert list(result.correct) == ["clean", "apgd-t-first"]
        assert list(result.shares) == [*result.correct, "apgd-t"]
        np.testing.assert_array_equal(np.isnan(result.distances), ~known)
        np.testing.assert_array_equal(np.isinf(result.distances), known & result.is_unbroken)
        np.testing.assert_array_equal(result.adversarial_prediction == -1, ~known)
        np.testing.assert_array_equal(result.misclassified_by == "left out", ~known)
        np.testing.assert_array_equal(result.misclassified_by == "", known & result.is_unbroken)
        assert "estimated to be robust ~" in str(result)
    low, high = report.union(8).interval
    assert low <= (source.robust(LINF, 8) & source.robust(L2, 8)).mean() <= high
    with pytest.raises(ValueError, match="is_robust is not known"):
        report.robust_to_all(8)


def test_stopped_sharded_and_read_again_it_is_the_same_report(model, tmp_path, monkeypatch):
    whole = run(model, out=tmp_path / "whole")
    for i in (1, 2):
        run(model, out=tmp_path / "shards", shard=(i, 2))
    merge([tmp_path / "shards"], tmp_path / "shards")
    write, count = kr.evaluation.result_store.ResultStore.write, 0

    def stop_sometimes(self, *arguments):
        nonlocal count
        write(self, *arguments)
        count += 1
        if count in (1, 6):  # each time the sample was just drawn
            raise InterruptedError

    monkeypatch.setattr(kr.evaluation.result_store.ResultStore, "write", stop_sometimes)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            run(model, out=tmp_path / "stopped")
    run(model, out=tmp_path / "stopped")
    assert count == 12  # 2 attacks x 2 threat models x 3 batches
    for folder in ("shards", "stopped"):
        for name in FILES:
            assert (tmp_path / folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = Report.load(tmp_path / "whole")
    for columns in (whole.per_image(), again.per_image()):
        left_out = columns["misclassified_by"] == "left out"
        np.testing.assert_array_equal(columns["adversarial_prediction"] == -1, left_out)
        np.testing.assert_array_equal(np.isnan(columns["perturbation_norm"]), left_out)
    assert again.union(8) == whole.union(8)
    assert str(again) == str(whole)


def test_no_file_and_no_line_gives_it_for_the_number_itself(model, exact, tmp_path, capsys):
    report = run(model, out=tmp_path, verbose=True)
    assert "apgd-t: clean" in (progress := capsys.readouterr().err)
    assert "robust at most " in progress
    content = kr.files.read_json(tmp_path / "report.json")
    for cell in content["results"]:
        assert "robust_accuracy" not in cell
        assert cell["n_correct_after"]["apgd-t"] is None
        low, high = cell["robust_estimate"]["interval_95"]
        assert low <= cell["robust_estimate"]["value"] <= high
    assert "union_estimate" in content["union"][0]
    assert content["settings"]["threats"][0]["sampling"]["probability"] == 0.4
    value = report[LINF, 8].robust.percent.removesuffix(" %")
    assert f"{value} %" in table({"a": report})
    assert "~ marks estimates: " in table({"a": report})
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert value in text
        assert "an estimate of standard" in text
        assert f"an estimated {value.removeprefix('~')} %" in text
        assert "marks estimates: " in text
    with pytest.raises(ValueError, match=r"lacks robust_accuracy"):
        robustness_rows(tmp_path / "report.json")
    with pytest.raises(ValueError, match=r"robust_accuracy is not known"):
        robustness_rows(report)

    both = {"exact": exact, "quick": report}
    assert "quick (estimate)" in table(both).splitlines()[0]
    assert "~ marks estimates of quick (estimate): " in table(both)
    assert "quick (estimate) against exact, image by image: a robust accuracy is an estimate" in pairs_table(both)
    latex, markdown = (render(both, form) for form in ("latex", "markdown"))
    assert f"$\\sim${value.removeprefix('~')} {{" in latex
    assert "quick (estimate) & AutoAttack fast, an estimate of standard & 8" in latex
    assert "| quick (estimate) | AutoAttack fast, an estimate of standard | 8 | " in markdown
    assert f"| {value} (" in markdown
    with pytest.raises(ValueError, match="robust_accuracy is not known"):
        render({"quick": report}, "robustbench")
    write_comparison(both, tmp_path / "both")
    for name in ("report.md", "report.html"):
        text = (tmp_path / "both" / name).read_text()
        assert "Those of quick (estimate) are estimates" in text
        assert "do not differ by more than chance" not in text
        assert "exact (estimate)" not in text


@pytest.mark.parametrize("asked", ["calibration", "eight_bit"])
def test_what_needs_all_images_is_refused(model, asked):
    with pytest.raises(ValueError, match=f"{asked} must be False with attack='fast'"):
        run(model, **{asked: True})
