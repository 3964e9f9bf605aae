"""The recipe of published segmentation models: its table, and what it refuses."""

import re

import pytest

import keras_robust as kr
from keras_robust.segmentation import published_runs
from tests import scripts

pytestmark = pytest.mark.once


@pytest.fixture
def script():
    return scripts.load("recipes/segmentation.py")


def test_table(script, capsys):
    assert script.main(["--list"]) == 0
    rows = {words[0]: words for words in map(str.split, capsys.readouterr().out.splitlines()) if words}
    # Name, parameters with 21 and 151 classes, epochs and mean IoU as published.
    assert rows["voc_tiny"][1:9] == ["60.2", "21", "473", "50", "32", "75.2", "64.9", "34.6"]
    assert rows["voc_small"][1:9] == ["81.8", "21", "473", "50", "32", "76.6", "66.0", "36.4"]
    assert rows["ade20k_tiny"][2:9] == ["151", "512", "128", "32", "31.7", "17.2", "4.9"]
    assert rows["ade20k_small"][2:9] == ["151", "512", "128", "32", "32.1", "17.9", "5.4"]


def test_cost_by_hand():
    """13 passes of 2 operations for each multiply-add: of the larger image in proportion to its pixels."""
    recipe = kr.segmentation.published("voc_tiny").recipe
    model = kr.segmentation.with_auxiliary_head(kr.segmentation.create(recipe.model, 21))
    work = kr.models.multiply_adds(model, 480) * (473 / 480) ** 2
    assert published_runs.operations(recipe, 100) == pytest.approx(2 * 13 * 50 * 100 * work, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "NAME must be one of voc_tiny"),
        (["voc_tiny"], "--data and --out must be given"),
        (["voc_tny", "--smoke"], "NAME must be one of .*Did you mean 'voc_tiny'"),
    ],
)
def test_refused(script, capsys, arguments, message):
    assert script.main(arguments) == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.slow
def test_smoke(small_segmenter, script, tmp_path, capsys):
    assert script.main(["voc_tiny", "--smoke", "--out", str(tmp_path / "run")]) == 0
    assert "Published mean IoU of voc_tiny: clean 75.2" in capsys.readouterr().out
    assert (tmp_path / "run/sea/report.md").is_file()
