"""Results in forms that others read."""

import csv
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from keras_robust.attacks.sampling import Sample
from keras_robust.evaluation import render
from tests.evaluation.samples import L2, LINF, N, report

pytestmark = pytest.mark.once


def test_latex_is_a_table_of_booktabs_with_escaped_names():
    reports = {
        "50% & more_#1": report(100, resolutions=(32,)),
        r"a\b{c}~": report(90, resolutions=(32,), threats=(L2,)),
    }
    lines = render(reports, "latex").splitlines()
    assert [lines[0], *lines[1:4:2], *lines[6:]] == [
        r"\begin{tabular}{llrccccc}",
        *(r"\toprule", r"\midrule"),
        *(r"\bottomrule", r"\end{tabular}"),
    ]
    assert lines[2] == (
        r"model & attack & pixels & clean & $\ell_\infty$ 4/255 & $\ell_\infty$ 8/255 & $\ell_2$ 0.5 & "
        r"all threat models \\"
    )
    # Wilson's intervals of 150, 100 and 90 of 200.
    assert lines[4].startswith(
        r"50\% \& more\_\#1 & AutoAttack short & 32 & 75.0 {\scriptsize (68.6--80.5)} & "
        r"50.0 {\scriptsize (43.1--56.9)} & 45.0"
    )
    assert lines[5] == (
        r"a\textbackslash{}b\{c\}\textasciitilde{} & AutoAttack short & 32 & 75.0 {\scriptsize (68.6--80.5)} &  &  & "
        r"45.0 {\scriptsize (38.3--51.9)} &  \\"
    )


def test_markdown_escapes_names():
    lines = render({"a|b *c* <d>": report(100, resolutions=(32,), threats=(LINF,))}, "markdown").splitlines()
    assert lines[0] == "| model | attack | pixels | clean | Linf 4/255 |"
    assert lines[2] == r"| a\|b \*c\* \<d\> | AutoAttack short | 32 | 75.0 (68.6-80.5) | 50.0 (43.1-56.9) |"


def test_what_makes_figures_doubtful_goes_with_the_table():
    found = report(100, resolutions=(32,), threats=(LINF,), attack_warnings=["no gradient\nreaches <x>"])
    settings = replace(found.settings, attack="fast")
    sample = Sample("apgd-ce", np.full(N, 0.5, np.float32), np.ones(N, bool))
    estimated = replace(found, settings=settings, results=[replace(found.results[0], sample=sample)])
    for form, mark, warning in (
        ("latex", "% ~ marks estimates: cheap attacks", "% warning: a: no gradient reaches <x>"),
        ("markdown", r"- \~ marks estimates: cheap attacks", r"- warning: a: no gradient reaches \<x\>"),
    ):
        text = render({"a": estimated}, form)
        assert "AutoAttack fast, an estimate of standard" in text
        lines = text.splitlines()
        assert sum(line.startswith(mark) for line in lines) == 1
        assert warning in lines
        assert mark not in render({"a": found}, form)


def test_csv_has_a_row_for_each_image_in_each_cell():
    reports = {"a": report(100, skipped=["x"]), "b,c": report(90, threats=(L2,), resolutions=(32,))}
    rows = list(csv.DictReader(io.StringIO(render(reports, "csv"))))
    assert len(rows) == N * (6 + 1)
    # Of 200 images 150 are right, and the first 100 of these under attack.
    first, broken, wrong = rows[0], rows[120], rows[199]
    assert (first["model"], first["resolution"], first["norm"], float(first["eps"])) == ("a", "32", "Linf", LINF.eps)
    assert (first["image"], first["label"], first["misclassified_by"]) == ("dog/0.png", "0", "")
    assert (broken["prediction"], broken["adversarial_prediction"]) == ("0", "1")
    assert (broken["misclassified_by"], float(broken["perturbation_norm"])) == ("apgd-ce", np.float32(LINF.eps))
    assert (wrong["misclassified_by"], wrong["propagations"]) == ("clean", "200")
    assert rows[-1]["model"] == "b,c"


def test_frame_is_the_same_table():
    pandas = pytest.importorskip("pandas")
    frame = report(100).to_frame()
    rows = pandas.read_csv(io.StringIO(render({report(100).name: report(100)}, "csv")), keep_default_na=False)
    assert len(frame) == 6 * N
    # How many images are left under attack, of each cell: 100 or, in the wider ball, 90.
    left = frame[frame.misclassified_by == ""].groupby(["resolution", "norm", "eps"]).size()
    assert left.tolist() == [100, 100, 90, 100, 100, 90]
    pandas.testing.assert_frame_equal(frame, rows, check_dtype=False, rtol=1e-6)


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="a DataFrame needs pandas: pip install pandas"):
        report(100).to_frame()


def test_entries_of_robustbench():
    one = json.loads(render({"mine": report(100)}, "robustbench"))
    assert (one["eps"], one["autoattack_acc"], one["unreliable"]) == ("4/255", "50.00", True)
    assert list(json.loads(render({"a": report(100), "b": report(90)}, "robustbench"))) == ["a", "b"]


def test_text_is_the_table_of_the_terminal():
    assert "Linf 4/255" in render({"a": report(100)}, "text")


def test_other_forms_are_refused():
    with pytest.raises(ValueError, match=r"form must be one of 'text', .*; received 'latx'. Did you mean 'latex'"):
        render({"a": report(100)}, "latx")
    with pytest.raises(ValueError, match="reports must hold at least one report"):
        render({}, "csv")
