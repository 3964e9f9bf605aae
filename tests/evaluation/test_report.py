import json

import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust as kr
from keras_robust.evaluation import Gallery, Report, Result, figure, table, write_json

THREATS = (kr.ThreatModel("Linf", 4 / 255), kr.ThreatModel("L2", 0.5))
RESOLUTIONS = (32, 40)


def report(robust):
    def flags(n):
        return np.arange(200) < n

    results = [Result(t, r, {"clean": flags(150), "1 apgd-ce": flags(robust)}) for r in RESOLUTIONS for t in THREATS]
    return Report({"seed": 0}, results)


@pytest.fixture
def reports():
    return {"clean training": report(0), "adversarial training": report(100)}


def test_table_holds_every_cell(reports):
    lines = table(reports).splitlines()
    assert len(lines) == 2 + 4
    assert lines[0].split("  ")[-1].strip() == "adversarial training"
    # Wilson's interval of 0 of 200 is 0 to 1.9 %, of 100 of 200 43.1 to 56.9 %.
    assert " ".join(lines[2].split()) == "32 Linf 4/255 75.0 % 0.0 % (0-2) 75.0 % 50.0 % (43-57)"
    assert [line.split()[:3] for line in lines[3:]] == [
        ["32", "L2", "0.5"],
        ["40", "Linf", "4/255"],
        ["40", "L2", "0.5"],
    ]


def test_json_holds_settings_counts_and_intervals(reports, tmp_path):
    content = json.loads(write_json(reports, tmp_path / "report.json").read_text())
    assert content["schema_version"] == 1
    model = content["models"]["adversarial training"]
    assert model["settings"] == {"seed": 0}
    cell = model["results"][1]
    assert (cell["norm"], cell["eps"], cell["resolution"], cell["n_examples"]) == ("L2", 0.5, 32, 200)
    assert cell["n_correct_after"] == {"clean": 150, "1 apgd-ce": 100}
    np.testing.assert_allclose(cell["robust_interval_95"], [0.4313, 0.5687], atol=1e-4)


def test_figure_grows_with_its_galleries(reports, tmp_path):
    x = np.full((3, 8, 8, 3), 0.5, np.float32)
    galleries = {"one": Gallery(x, x, ["a", "b", "c"])}
    paths = figure(reports, tmp_path / "plain.png"), figure(reports, tmp_path / "full.png", galleries)
    with Image.open(paths[0]) as plain, Image.open(paths[1]) as full:
        assert plain.width == full.width
        assert plain.height < full.height


def test_gallery_names_what_the_model_sees():
    inputs = keras.Input((None, None, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs)))
    model.set_weights([np.array([[0.0, 1.0]]), np.array([0.0, -0.5])])  # class 1 is brighter than 0.5
    x = np.stack([np.full((4, 4, 1), value, np.float32) for value in (0.49, 0.3)])
    attack = kr.attacks.PGD(kr.ThreatModel("Linf", 0.1))
    gallery = Gallery.of(model, attack, x, np.array([0, 0]), ["dark_night", "day"])
    assert gallery.captions == ["dark night\n→ day", "dark night\n→ dark night"]
    np.testing.assert_array_equal(gallery.x, x)
    np.testing.assert_allclose(gallery.x_adv, x + 0.1, atol=1e-6)
