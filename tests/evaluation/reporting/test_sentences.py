import pytest

from keras_robust.evaluation.reporting.sentences import headlines, notes
from tests.evaluation.samples import report

pytestmark = pytest.mark.once


def test_imagenet_without_the_list_is_said():
    def is_said(**images):
        return any("RobustBench" in note for note in notes({"a": report(100, image_settings=images)}))

    assert not is_said()
    assert is_said(imagenet=True)
    assert not is_said(imagenet=True, list="ids.txt")


def test_headlines_say_what_was_found():
    (one,) = headlines({"a": report(100)})
    assert one == (
        "Of 200 images at 32 px, 75.0 % are classified correctly, and 50.0 % (43 to 57) still are under attack within "
        "Linf 4/255, 45.0 % (38 to 52) within any of the 3 threat models."
    )
    ranking, best = headlines({"a": report(60), "b": report(100), "c": report(90)})
    assert "b 50.0 % (43 to 57), c 45.0 % (38 to 52), a 30.0 % (24 to 37)" in ranking
    assert best.startswith("On the same images, b keeps 5.0 points more right than c (")
    assert headlines({"a": report(100), "b": report(101)})[1] == (
        "b and a do not differ by more than chance on these images."
    )


def test_no_headline_ranks_models_that_met_other_attacks():
    reports = {"a": report(60), "b": report(100, attack_settings={"n_iter": 10})}
    assert headlines(reports)[1] == (
        "b and a did not meet the same attacks: which of them is the more robust one, this comparison does not say."
    )


def test_what_is_not_held_out_is_said():
    note = "no images are held out: those that a model was trained on may be among them"
    assert f"The images: {note}." in notes({"a": report(100, image_settings={"note": note})})
