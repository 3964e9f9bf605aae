"""RobustBench's images and entries, and published figures beside ours."""

import re

import numpy as np
import pytest

from keras_robust import models
from keras_robust.attacks.sampling import Sample
from keras_robust.evaluation import robustbench
from tests.evaluation.samples import L2, LINF, N, report

pytestmark = pytest.mark.once

NAME = "Singh2023Revisiting_ConvNeXt-T-ConvStem"
AS_PUBLISHED = {"list": "robustbench_imagenet.txt"}


def evaluated(**changes):
    """150 of 200 images right, and 100 of them under attack."""
    return report(100, resolutions=(224,), threats=(LINF,), **changes)


def test_the_images_are_named():
    lines = robustbench.IMAGE_LIST.read_text().splitlines()
    assert len(lines) == len(set(lines)) == robustbench.N_IMAGES
    assert all(re.fullmatch(r"n\d{8}/ILSVRC2012_val_000\d{5}\.JPEG", line) for line in lines)
    assert lines[0] == "n09468604/ILSVRC2012_val_00015253.JPEG"


def test_entry_in_robustbenchs_form(monkeypatch):
    monkeypatch.setattr(robustbench, "N_IMAGES", N)
    found = evaluated(image_settings=AS_PUBLISHED)
    object.__setattr__(found.settings, "attack", "standard")
    entry = robustbench.entry(found, NAME)
    # The keys of the board's own file of this checkpoint, and what of it does not depend on who evaluates.
    assert list(entry) == [
        *("link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture"),
        *("eps", "clean_acc", "reported", "autoattack_acc", "unreliable"),
    ]
    assert (entry["eps"], entry["dataset"], entry["reported"]) == ("4/255", "imagenet", "49.46")
    assert (entry["clean_acc"], entry["autoattack_acc"]) == ("75.00", "50.00")
    assert entry["unreliable"] is False


def test_what_is_not_robustbenchs_evaluation_says_so():
    entry = robustbench.entry(evaluated(image_settings={"crop_pct": 1.0}), NAME)
    assert entry["unreliable"] is True
    assert entry["footnote"] == "Evaluated by keras_robust: attack short; 200 images; preprocessing"
    warned = robustbench.entry(evaluated(attack_warnings=["no gradient reaches the images"]), NAME)
    assert "no gradient reaches the images" in warned["footnote"]


def test_an_estimate_is_not_published():
    found = evaluated()
    sample = Sample("apgd-ce", np.full(N, 0.5, np.float32), np.ones(N, bool))
    object.__setattr__(found.results[0], "sample", sample)
    for function in (robustbench.entry, robustbench.comparison):
        with pytest.raises(ValueError, match=r"must hold the robust accuracy itself; received an estimate, ~50\.0 %"):
            function(found, NAME)


def test_difference_to_the_published_figures():
    # Wilson intervals of 150 and 100 of 200: 68.57 to 80.49 and 43.14 to 56.86 %.
    assert robustbench.comparison(evaluated(), NAME) == (
        f"{NAME}, Linf 4/255, 200 images: clean 75.00 %, published 72.72: +2.28 points (-4.15 to +7.77); "
        "robust 50.00 %, published 49.46: +0.54 points (-6.32 to +7.40)"
    )


def test_a_report_of_other_cells_is_refused():
    with pytest.raises(ValueError, match=r"report must have a cell of Linf 4/255 at 224 pixels, as .* was published"):
        robustbench.comparison(report(100), NAME)


def test_entry_of_a_model_that_is_no_preset():
    entry = robustbench.entry(evaluated(), authors="A. Author", reported="51.00", footnote="Tried twice")
    assert (entry["authors"], entry["reported"], entry["link"], entry["eps"]) == ("A. Author", "51.00", "", "4/255")
    assert entry["footnote"].startswith("Tried twice; Evaluated by keras_robust: attack short")
    assert "external" not in entry
    l2 = robustbench.entry(report(100, threats=(L2,)))
    assert (l2["eps"], l2["clean_acc"], l2["dataset"]) == ("0.5", "75.00", "")
    with pytest.raises(ValueError, match=r"about must be one of .*; received 'author'. Did you mean 'authors'"):
        robustbench.entry(evaluated(), author="A")


def test_what_others_found_is_said():
    name = "Amini2024MeanSparse_Swin-L"
    entry = robustbench.entry(report(100, resolutions=(models.preset(name).preprocessing.resolution,)), name)
    assert (entry["reported"], entry["external"]) == ("62.12", "58.92")
