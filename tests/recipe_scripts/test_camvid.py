"""The recipe of segmentation, in miniature: three ways, their evaluations and the table, and what is not done twice."""

import keras
import pytest

import keras_robust as kr
from tests import scripts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="nothing in it depends on the backend"),
]


def test_smoke(tmp_path, monkeypatch, capsys):
    recipe = scripts.load("recipes/camvid.py")
    kr.weights.save(kr.models.create("convnext_atto_convstem", num_classes=3), tmp_path / "robust.safetensors")
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
