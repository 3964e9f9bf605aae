import json

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
