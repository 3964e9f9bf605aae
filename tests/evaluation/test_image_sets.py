"""Other images in an evaluation: corrupted ones and other data sets, resumed, in shards, merged."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import keras_robust as kr
from keras_robust.evaluation import Report, evaluate, image_sets, merge, sections
from keras_robust.evaluation.corruptions import ALEXNET, VERSIONS
from keras_robust.evaluation.image_selection import select
from tests.evaluation.problem import WEIGHTS, Flat, linear_model

pytestmark = pytest.mark.once
THREAT = kr.ThreatModel("Linf", 0.01)
SIDE, N = 8, 10
ATTACK = [kr.attacks.FGSM(THREAT, returns="misclassified")]


class Named(Flat):
    """Images that know the names of their files."""

    def identifier(self, index):
        return f"{self.class_names[self.labels[index]]}/{index}.png"


def write(folder, source, dim=1.0, only=None):
    for index, label in enumerate(source.labels):
        if only is not None and label != only:
            continue
        path = folder / source.class_names[label] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((source.image(index) * dim).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for version, dim in (("contrast/1", 1.0), ("fog/2", 0.5)):
        write(folder / "c" / version, Named(N), dim)
    write(folder / "half", Named(N), only=1)
    write(folder / "other", Named(N), only=0)
    return folder


def run(place, **options):
    besides = {"corruptions": place / "c", "shifts": {"half": place / "half"}, "calibration": True, "eight_bit": True}
    settings = {"batch_size": 4, "verbose": False, **besides, **options}
    return evaluate(linear_model(), Named(N), [THREAT], [SIDE], ATTACK, **settings)


@pytest.fixture(scope="module")
def report(place, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    run(place, out=out)
    return Report.load(out)


def test_corrupted_images_are_those_of_the_folder(report):
    corrupted = report.image_sets[0]
    index = report.images.index
    assert corrupted.settings.versions == ("fog/2", "contrast/1")  # in the order of the publication
    for version, dim in (("contrast/1", 1.0), ("fog/2", 0.5)):
        score = ((Named(N).colours[index] * dim).astype(np.uint8) / 255 - 0.5) @ WEIGHTS
        np.testing.assert_array_equal(corrupted.predictions[version], (score > 0).astype(int))
    np.testing.assert_array_equal(corrupted.correct["contrast/1"], report[THREAT, SIDE].misclassified_at > 0)


def test_of_fewer_classes_the_answer_is_one_of_them(report):
    half = report.image_sets[1]
    assert (half.settings.name, half.settings.outputs) == ("half", 1)
    assert set(half.predictions[""]) == {1}
    assert half.accuracies[""].value == 1.0


def test_calibration_and_rounding_are_kept(report):
    cell, label = report[THREAT, SIDE], report.images.label
    index = report.images.index
    odds = np.exp(-Named(N).margins()[index])
    probability = np.maximum(1 / (1 + odds), 1 - 1 / (1 + odds))
    np.testing.assert_allclose(cell.certainty[:, 0], probability, rtol=1e-4)
    broken = cell.misclassified_at == 1
    np.testing.assert_array_equal(cell.adversarial_certainty[~broken], cell.certainty[~broken])
    # FGSM moves every pixel by 0.01 * 255 = 2.55 levels, which rounding makes 3.
    moved = Named(N).margins()[index] - 3 / 255 * np.abs(WEIGHTS).sum()
    np.testing.assert_array_equal((cell.rounded_prediction != label)[broken], (moved < 0)[broken])
    names = [section.heading for section in sections(report)]
    assert names == [
        "Common corruptions at 8 px",
        "Common corruptions at 8 px, in all",
        "Other images",
        "Calibration",
        "Adversarial images in 8 bits",
    ]
    assert all(len(row) == len(section.header) for section in sections(report) for row in section.rows)


def test_files_and_page(report, tmp_path):
    path = kr.evaluation.write(report, tmp_path)
    page = path.read_text()
    for text in ("Common corruptions", "Other images", "Calibration", "in 8 bits", "Reliability"):
        assert text in page
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["image_sets"][1]["accuracies"][""]["clean_accuracy"] == 1.0
    assert "| fog |" in (tmp_path / "report.md").read_text()


def test_shards_resumed_and_merged_are_the_whole(report, place, tmp_path):
    for part in (1, 2):
        assert run(place, out=tmp_path, shard=(part, 2)) is None
        run(place, out=tmp_path, shard=(part, 2))
    merged = merge([tmp_path], tmp_path)
    for ours, theirs in zip(merged.image_sets, report.image_sets, strict=True):
        assert ours.settings == theirs.settings
        for version in ours.settings.versions:
            np.testing.assert_array_equal(ours.predictions[version], theirs.predictions[version])
    np.testing.assert_array_equal(merged.results[0].adversarial_certainty, report.results[0].adversarial_certainty)
    (tmp_path / "state" / "sets" / "corruptions" / "8px-00001.npz").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 batches are not done \(corruptions 8 px batch 1\)"):
        merge([tmp_path], tmp_path)
    with pytest.raises(ValueError, match=r"image_sets"):
        run(place, out=tmp_path, corruptions=False)


def test_all_figures_are_compared(report):
    labels = [row.label for row in kr.evaluation.comparison.differences(report, report)]
    assert labels == [
        *("clean", "Linf 0.01", "Linf 0.01, still right after rounding (no attack knew of it)"),
        *("half", "corruptions, mean accuracy"),
        *("ECE, clean", "Brier score, clean", "ECE, Linf 0.01", "Brier score, Linf 0.01"),
    ]
    assert all(row.paired.difference == 0 for row in kr.evaluation.comparison.differences(report, report))


def test_entries_have_corruptions_where_all_were_read_from_files(report):
    def found(imagenet=True, versions=VERSIONS, **changes):
        corrupted = report.image_sets[0]
        answers = dict.fromkeys(versions, corrupted.predictions["fog/2"])
        settings = replace(corrupted.settings, versions=versions, **changes)
        images = replace(report.settings.images, imagenet=imagenet)
        whole = replace(corrupted, settings=settings, predictions=answers)
        evaluated = replace(report, settings=replace(report.settings, images=images), image_sets=[whole])
        return {key: text for key, text in kr.evaluation.robustbench.entry(evaluated).items() if "corruptions" in key}

    accuracy = np.mean(report.image_sets[0].correct["fog/2"])
    mce = np.mean([(1 - accuracy) / error for error in ALEXNET.values()])
    assert found() == {"corruptions_acc": f"{100 * accuracy:.2f}", "corruptions_mce": f"{100 * mce:.2f}"}
    assert found(imagenet=False) == {"corruptions_acc": f"{100 * accuracy:.2f}"}
    assert found(versions=VERSIONS[1:]) == found(files_sha256=None) == {}


def test_a_part_of_the_corruptions_is_called_one(report):
    each, together = sections(report)[:2]
    assert [row[0] for row in together.rows] == ["mean accuracy of 2 of 75"]
    assert [row[-1] for row in each.rows] == ["", ""]


def test_other_files_are_not_the_same_corruptions(place, report, tmp_path):
    shutil.copytree(place / "c", tmp_path / "c")
    run(place, out=tmp_path / "out")
    run(place, out=tmp_path / "out", corruptions=tmp_path / "c")  # the same files elsewhere
    write(tmp_path / "c" / "fog" / "2", Named(N), 0.4)
    with pytest.raises(ValueError, match=r"state of another evaluation: image_sets"):
        run(place, out=tmp_path / "out", corruptions=tmp_path / "c")
    others = run(place, corruptions=tmp_path / "c")
    labels = [row.label for row in kr.evaluation.comparison.differences(report, others)]
    assert "half" in labels
    assert "corruptions, mean accuracy" not in labels


def test_what_makes_corruptions_is_noted(monkeypatch):
    monkeypatch.setattr(image_sets, "corrupt", lambda image, *_: image)
    monkeypatch.setattr(image_sets, "MAKERS", ("numpy",))
    selection = select(Named(N, 32), 2)
    settings = image_sets.corrupted(None, Named(N, 32), selection, [32], 1.0, "bicubic", 7).settings
    assert f"numpy {np.__version__}; seed 7)" in settings.note
    assert settings.files_sha256 is None


def set_of(source, selection=None, **options):
    selection = select(Flat(N, class_names=("no", "yes")), 2) if selection is None else selection
    return image_sets.shifted("other", source, 2, selection, 1.0, "bicubic", **options)


def test_classes_of_other_images_that_are_strangers_are_refused():
    # In the order of their names "affirmative" would be "no".
    with pytest.raises(ValueError, match=r"shifts\['other'\]: .* not there are 2 of 2: affirmative, negative"):
        set_of(Flat(N, class_names=("affirmative", "negative")))
    swapped = set_of(Flat(N, class_names=("yes", "no")))
    assert swapped.settings.matched_by == "name"
    assert sorted(swapped.labels) == sorted(1 - Flat(N).labels)


def test_classes_by_order_or_number_are_warned_of(report):
    numbered = set_of(Flat(N, class_names=("0", "1"))).settings
    assert numbered.matched_by == "order"
    settings = replace(report.settings, image_sets=(numbered, replace(numbered, matched_by="number", skipped=3)))
    found = [warning for warning in replace(report, settings=settings).warnings if "other" in warning]
    assert [warning.split(":")[0] for warning in found[:2]] == [
        "Classes of other by order",
        "Classes of other by number",
    ]
    assert found[2] == "Skipped: 3 images of other could not be read, and were replaced by others if any."


def test_which_outputs_may_be_the_answer_is_kept(place):
    selection = replace(select(Flat(N), 2), outputs=("no", "yes"))
    one, other = (set_of(place / part, selection).settings for part in ("half", "other"))
    assert (one.outputs, other.outputs) == (1, 1)
    assert one.outputs_sha256 != other.outputs_sha256


def test_other_images_that_cannot_be_read_are_told(place, tmp_path):
    shutil.copytree(place / "half", tmp_path / "half")
    first = min((tmp_path / "half" / "yes").iterdir())
    first.write_bytes(b"no image")
    n = len(list(first.parent.iterdir()))
    found = set_of(tmp_path / "half", n_examples=N, skip_corrupt=True)
    assert (len(found), found.settings.skipped) == (n - 1, 1)
    assert "; 1 images could not be read; " in found.settings.note + "; "


def test_without_them_nothing_is_shown():
    plain = evaluate(linear_model(), Named(N), [THREAT], [SIDE], ATTACK, batch_size=16, verbose=False)
    assert sections(plain) == []
    assert plain.results[0].certainty is None
    with pytest.raises(ValueError, match="report must be of an evaluation with calibration=True"):
        list(kr.evaluation.measures.calibrations(plain, SIDE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corruptions": "absent"}, "corruptions must be a folder of <corruption>/<severity>/<class>/<file>"),
        ({"corruptions": True}, "resolutions must be at least 32 for corruptions; received 8"),
        ({"shifts": {"a/b": "photo_crops"}}, "shifts must have names of letters"),
        ({"shifts": {"..": "photo_crops"}}, "shifts must have names of letters"),
        ({"shifts": {"corruptions": "photo_crops"}}, "shifts must have names of letters"),
        ({"calibration": 1}, "calibration must be True or False"),
    ],
)
def test_bad_input(place, options, message):
    with pytest.raises(ValueError, match=message):
        run(place, **options)


def test_a_folder_that_lacks_images(place, tmp_path):
    write(tmp_path / "fog" / "1", Named(N), only=0)
    with pytest.raises(ValueError, match=r"corruptions must hold the images of the evaluation.* are not in"):
        run(place, corruptions=tmp_path)


def test_corruptions_on_the_fly():
    pytest.importorskip("imagecorruptions")
    options = {"batch_size": 4, "verbose": False, "corruptions": True, "n_examples": 3}
    first, second = (
        evaluate(linear_model(), Named(N, 32), [THREAT], [32], ATTACK, **{**options, "batch_size": size})
        for size in (4, 2)
    )
    assert first.image_sets[0].settings.versions == VERSIONS
    for version in VERSIONS:
        np.testing.assert_array_equal(
            first.image_sets[0].predictions[version], second.image_sets[0].predictions[version]
        )
    assert "imagecorruptions" in first.image_sets[0].settings.note
