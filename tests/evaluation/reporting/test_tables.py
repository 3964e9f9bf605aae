import pytest

from keras_robust.evaluation import pairs_table, table
from keras_robust.evaluation.reporting.page import page
from keras_robust.evaluation.reporting.tables import markdown
from tests.evaluation.samples import report

pytestmark = pytest.mark.once


def test_table_holds_every_cell():
    lines = table({"clean training": report(20), "adversarial training": report(100)}).splitlines()
    assert len(lines) == 2 + 2 * 4 + 1
    assert lines[0].split("  ")[-1].strip() == "adversarial training"
    # Wilson's interval of 20 of 200 is 7 to 15 %, of 100 of 200 43 to 57 %, of 10 of 200 3 to 9 %.
    assert " ".join(lines[2].split()) == "32 Linf 4/255 75.0 % 10.0 % (7-15) 75.0 % 50.0 % (43-57)"
    assert " ".join(lines[5].split()) == "32 all 75.0 % 5.0 % (3-9) 75.0 % 45.0 % (38-52)"
    assert lines[-1].startswith("warning: clean training: No better than one answer for all")  # of five classes


def test_pairs_are_tested_image_by_image():
    text = pairs_table({"a": report(100), "b": report(120), "c": report(60)}).splitlines()
    row = next(line for line in text if "Linf 4/255" in line)
    assert "+10.0 points" in row
    assert "20 : 0" in row
    assert row.endswith("p < 0.001")  # 2 / 2^20
    assert next(line for line in text if "clean" in line).endswith("0 : 0   p 1.000")
    assert "c against a, image by image" in text


def test_other_attacks_are_not_paired():
    reports = {"a": report(100), "b": report(120, attack_settings={"n_iter": 10})}
    reason = "not the same attacks for Linf 4/255, Linf 8/255, L2 0.5: no paired test of these"
    assert pairs_table(reports).splitlines()[1:] == [
        f"b against a, image by image: {reason}",
        *(line for line in pairs_table({"a": report(100), "b": report(120)}).splitlines() if " clean " in line),
    ]
    assert f"{reason}\n\n| pixels | figure |" in markdown(reports)
    assert f'<p class="note">{reason}</p>' in page(reports)


def test_other_images_are_not_paired():
    other = report(100)
    other.images.digest[3] += 1
    assert "not the same images" in pairs_table({"a": report(100), "b": other})
    assert "no resolution in common" in pairs_table({"a": report(100), "b": report(100, resolutions=(64,))})
