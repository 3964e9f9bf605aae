"""The recipe of segmentation, in miniature: three ways, their evaluations and the table, and what is not done twice."""

import pytest

import keras_robust as kr
from keras_robust.models.convnext import ConvNeXt
from keras_robust.segmentation import registry
from keras_robust.segmentation.upernet import UPerNet
from tests import scripts

pytestmark = [pytest.mark.slow, pytest.mark.once]


@pytest.fixture
def recipe(monkeypatch):
    """The recipe with a small net in the place of its own."""
    recipe = scripts.load("recipes/camvid.py")
    assert recipe.NAME in registry.SEGMENTERS
    kr.models.register("small_backbone", ConvNeXt((1, 1, 1, 1), (8, 8, 8, 8), conv_stem=(4, 8)))
    monkeypatch.setitem(registry.SEGMENTERS, "small", UPerNet("small_backbone", channels=8, auxiliary_channels=6))
    monkeypatch.setattr(recipe, "NAME", "small")
    return recipe


def test_smoke(recipe, tmp_path, monkeypatch):
    kr.weights.save(kr.models.create("small_backbone", num_classes=3), tmp_path / "robust.safetensors")
    given = ["--smoke", "--out", str(tmp_path / "out"), "--backbone", str(tmp_path / "robust.safetensors")]
    assert recipe.main(given) == 0
    table = (tmp_path / "out/table.md").read_text()
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| clean", "| adversarial", "| robust-backbone"]
    assert all(len(row) == 2 + 4 for row in rows)
    assert (tmp_path / "out/adversarial-0/sea/report.md").is_file()
    # A second call trains and attacks nothing.
    monkeypatch.setattr(kr.AdversarialModel, "fit", None)
    monkeypatch.setattr(kr.attacks.APGD, "__call__", None)
    assert recipe.main(given) == 0
    assert (tmp_path / "out/table.md").read_text() == table
