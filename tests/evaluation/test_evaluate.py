import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust.evaluation import Report, evaluate, merge
from keras_robust.evaluation.attack_suites import named
from keras_robust.evaluation.settings import ModelSettings
from tests.evaluation.problem import Flat, evaluation, linear_model

ROOT = Path(kr.__file__).parents[1]
LINF, L2 = kr.ThreatModel("Linf", 0.01), kr.ThreatModel("L2", 0.2)
FILES = ("report.json", "per_image.npz", "gallery.npz", "report.md", "report.html")


@pytest.fixture(scope="module")
def model():
    return linear_model()


def attacks(**options):
    return [kr.attacks.APGD(kr.ThreatModel("L2", 9.0), n_iter=3, returns="misclassified", **options)]


def run(model, n=23, threats=(LINF,), resolutions=(8,), attack=None, **options):
    options = {"batch_size": 5, "verbose": False, **options}
    return evaluate(model, Flat(n), threats, resolutions, attacks() if attack is None else attack, **options)


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


def test_linear_model_has_the_robustness_of_its_weights(model):
    report = run(model, 60, [LINF, L2], [8, 16], batch_size=25)
    source = Flat(60)
    labels = source.labels[report.images.index]
    np.testing.assert_array_equal(report.images.label, labels)
    for resolution in (8, 16):
        for threat in (LINF, L2):
            result = report[threat, resolution]
            expected = source.robust(threat, resolution)[report.images.index]
            clean = source.margins()[report.images.index] > 0
            assert 0.2 < expected.mean() < clean.mean() < 1
            np.testing.assert_array_equal(result.correct["clean"], clean)
            np.testing.assert_array_equal(result.is_robust, expected)
            np.testing.assert_array_equal(result.prediction == labels, clean)
            # A broken image has the other class and a perturbation in the ball; nothing else has a perturbation.
            broken = clean & ~expected
            np.testing.assert_array_equal(result.adversarial_prediction[broken], 1 - labels[broken])
            np.testing.assert_array_equal(result.perturbation_norm > 0, broken)
            assert result.perturbation_norm.max() <= threat.eps * (1 + 1e-5)
            np.testing.assert_array_equal(result.evaluations["apgd-ce"] > 0, clean)
        union = source.robust(LINF, resolution) & source.robust(L2, resolution)
        np.testing.assert_array_equal(report.robust_to_all(resolution), union[report.images.index])
        assert report.union(resolution).value == union.mean()


def test_half_precision_is_evaluated_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    rounded = linear_model()
    keras.config.set_dtype_policy("float32")
    report = run(rounded)
    np.testing.assert_array_equal(report.results[0].is_robust, Flat(23).robust(LINF, 8)[report.images.index])


@pytest.mark.once
def test_attacks_run_on_what_is_left(model):
    weak = kr.attacks.FGSM(LINF, step_size=1e-4, returns="misclassified")
    result = run(model, attack=[weak, *attacks(), weak]).results[0]
    assert list(result.accuracy_after) == ["clean", "fgsm-ce", "apgd-ce", "fgsm-ce-2"]
    clean, first, second, third = result.accuracy_after.values()
    assert clean >= first > second == third
    assert (result.evaluations["fgsm-ce-2"] > 0).sum() == result.correct["apgd-ce"].sum()


@pytest.mark.once
def test_version_of_autoattack_with_its_warnings(model):
    report = run(model, attack="short")
    assert list(report.results[0].stages) == ["clean", "apgd-ce", "apgd-t"]
    np.testing.assert_array_equal(report.results[0].is_robust, Flat(23).robust(LINF, 8)[report.images.index])
    assert report.settings.threats[0].attacks["apgd-t"]["loss"] == "targeted-margin"
    expected = ["Few classes", "No better than one answer for all", "Few images"]
    assert [warning.split(":")[0] for warning in report.warnings] == expected


@pytest.mark.once
def test_batch_size_does_not_matter(model):
    one, two = (run(model, batch_size=size).results[0] for size in (7, 100))
    np.testing.assert_array_equal(one.misclassified_at, two.misclassified_at)


@pytest.mark.once
def test_preprocessing_reaches_the_model(model):
    class Framed(Flat):
        """A white border of 4 px: a model that sees it finds every image brighter."""

        def image(self, index):
            image = super().image(index)
            image[:4], image[-4:], image[:, :4], image[:, -4:] = 255, 255, 255, 255
            return image

    def predictions(**options):
        fgsm = [kr.attacks.FGSM(LINF, returns="misclassified")]
        source = Framed(40, side=32)
        report = evaluate(model, source, [LINF], [16], fgsm, verbose=False, **options)
        assert report.settings.images.interpolation == options["interpolation"]
        return report.results[0].prediction, source.margins()[report.images.index], report.images.label

    inside, margins, labels = predictions(crop_pct=0.5, interpolation="bilinear")
    np.testing.assert_array_equal(inside == labels, margins > 0)
    whole, *_ = predictions(crop_pct=1.0, interpolation="bicubic")
    assert (whole >= inside).all()  # the border pushes all towards class 1
    assert (whole > inside).any()
    with pytest.raises(ValueError, match="interpolation must be one of 'bicubic', 'bilinear'"):
        predictions(crop_pct=0.5, interpolation="nearest")


@pytest.mark.once
def test_grey_images_for_a_model_of_one_channel():
    class Grey(Flat):
        def image(self, index):
            return super().image(index)[..., :1].repeat(3, axis=2)

    inputs = keras.Input((8, 8, 1))
    grey = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(inputs)))
    grey.layers[-1].set_weights([np.array([[0.0, 1.0]]), np.array([0.0, -0.5])])
    fgsm = [kr.attacks.FGSM(LINF, returns="misclassified")]
    report = evaluate(grey, Grey(9), [LINF], [8], fgsm, verbose=False)
    bright = Grey(9).colours[report.images.index, 0] > 127.5
    np.testing.assert_array_equal(report.results[0].prediction, bright)
    with pytest.raises(ValueError, match=r"one channel; image [0-9]+ is in colour"):
        evaluate(grey, Flat(9), [LINF], [8], fgsm, verbose=False)
    with pytest.raises(ValueError, match="model cannot take images of 16 x 16"):
        evaluate(grey, Grey(9), [LINF], [16], fgsm, verbose=False)


@pytest.mark.once
def test_rising_with_eps_is_a_warning(model):
    result = run(model, threats=[LINF, kr.ThreatModel("Linf", 0.02)])
    others = {"No better than one answer for all", "Few images"}
    assert {warning.split(":")[0] for warning in result.warnings} == others
    broken = result.results[1]
    broken.misclassified_at[:] = len(broken.stages)
    [warning] = [warning for warning in result.warnings if warning.split(":")[0] not in others]
    assert "Rising with eps" in warning


class Interrupted(Exception):
    pass


@pytest.mark.once
def test_stopped_it_goes_on_to_the_same_report(model, tmp_path, monkeypatch):
    options = {"n": 12, "threats": [LINF, L2], "resolutions": [8, 12]}
    run(model, out=tmp_path / "whole", **options)
    write, count = kr.evaluation.result_store.ResultStore.write, 0

    def stop_sometimes(self, *arguments):
        nonlocal count
        write(self, *arguments)
        count += 1
        if count in (1, 8):  # between two threat models of a batch, and between two batches
            raise Interrupted

    monkeypatch.setattr(kr.evaluation.result_store.ResultStore, "write", stop_sometimes)
    for _ in range(2):
        with pytest.raises(Interrupted):
            run(model, out=tmp_path / "stopped", **options)
    run(model, out=tmp_path / "stopped", **options)
    assert count == 12  # 2 threat models x 2 resolutions x 3 batches: nothing was done twice
    assert contents(tmp_path / "whole") == contents(tmp_path / "stopped")


@pytest.mark.once
def test_shards_merge_to_the_same_report(model, tmp_path):
    run(model, out=tmp_path / "whole")
    for i, folder in ((1, "b"), (2, "a")):
        assert run(model, out=tmp_path / folder, shard=(i, 2)) is None
        assert not (tmp_path / folder / "report.json").exists()
    with pytest.raises(ValueError, match=r"2 of 5 batches are not done \(8 px batch 1, 8 px batch 3\)"):
        merge([tmp_path / "b"], tmp_path / "merged")
    report = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "merged")
    assert contents(tmp_path / "whole") == contents(tmp_path / "merged")
    assert report.results[0].n_examples == 23

    settings = tmp_path / "b" / "state" / "settings.json"
    settings.write_text(settings.read_text().replace('"seed": 0,', '"seed": 1,'))
    with pytest.raises(ValueError, match=r"of different evaluations: .*seed is 0 here and 1 there"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "wrong")
    with pytest.raises(ValueError, match="holds no state"):
        merge([tmp_path / "nothing"], tmp_path / "wrong")


@pytest.mark.once
def test_state_of_other_weights_is_refused(model, tmp_path):
    run(model, out=tmp_path)
    other = linear_model()
    kernel, bias = other.get_weights()
    other.set_weights([kernel, bias + 1e-6])
    with pytest.raises(ValueError, match=r"another evaluation: model\.sha256 is"):
        run(other, out=tmp_path)
    with pytest.raises(ValueError, match=r"another evaluation: images\.n_examples is 22 here and 23 there"):
        run(model, 22, out=tmp_path)


def started(folder, devices=1):
    """The evaluation of `problem.py` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "-1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.evaluation.problem", str(folder), str(devices)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the evaluation of `problem.py` leaves in its folder."""
    folder = tmp_path_factory.mktemp("whole")
    evaluation(folder)
    return contents(folder)


@pytest.mark.once
@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_report(tmp_path, whole):
    killed = started(tmp_path)
    deadline = time.monotonic() + 240
    while len(list((tmp_path / "state").glob("8px-*"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.stderr.close()
    assert not (tmp_path / "report.json").exists()
    evaluation(tmp_path)
    assert contents(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has one device under PyTorch")
def test_two_devices_give_the_report_of_one(tmp_path, whole):
    process = started(tmp_path, devices=2)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    assert contents(tmp_path) == whole


class Opaque:
    """The linear model as numpy: no gradients to be had."""

    differentiable = False
    sha256 = "0" * 64

    def __init__(self, model):
        self._weights = model.get_weights()

    def __call__(self, x):
        kernel, bias = self._weights
        return keras.ops.convert_to_tensor(np.asarray(keras.ops.convert_to_numpy(x)).mean((1, 2)) @ kernel + bias)


@pytest.mark.once
def test_black_box_meets_square_and_what_fools_its_surrogate(model, monkeypatch):
    monkeypatch.setitem(kr.attacks.versions.ATTACKS, "square", (kr.attacks.Square, {"n_queries": 20}))
    report = run(Opaque(model), 6, attack="short", batch_size=6)
    assert report.results[0].stages == ("clean", "square")
    assert report.settings.model == ModelSettings("Opaque", "0" * 64, False, None, {8: None})
    assert report.warnings[0].startswith("Black box: this model gives no gradients")
    transferred = run(Opaque(model), 23, attack="short", batch_size=12, surrogate=model).results[0]
    assert transferred.stages == ("clean", "transfer", "square")
    # Images that fool the surrogate, the same model, are all that there are.
    expected = Flat(23).robust(LINF, 8)[report_index(23)]
    np.testing.assert_array_equal(transferred.correct["transfer"], expected)


def report_index(n):
    from keras_robust.evaluation.image_selection import select

    return select(Flat(n), 2).index


@pytest.mark.once
def test_names_of_attacks():
    margin = kr.attacks.PGD(LINF, loss=lambda logits, y: logits[:, 0])
    attacks = named([kr.attacks.APGD(LINF, loss="dlr"), margin, kr.attacks.APGD(LINF, loss="dlr")], L2)
    assert list(attacks) == ["apgd-dlr", "pgd-<lambda>", "apgd-dlr-2"]
    assert {attack.threat for attack in attacks.values()} == {L2}


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threats": []}, "threats must be a sequence"),
        ({"threats": [LINF, LINF]}, "threats must not repeat"),
        ({"threats": [0.1]}, r"threats\[0\] must be a ThreatModel; received 0.1"),
        ({"resolutions": 32}, "resolutions must be a sequence"),
        ({"resolutions": [0]}, "resolutions must be an integer >= 1"),
        ({"attack": ()}, "attack must be a version of AutoAttack or a sequence of attacks"),
        ({"attack": "strong"}, "attack must be one of 'standard'"),
        ({"attack": ["apgd"]}, r"attack\[0\] must be an Attack"),
        ({"attack": [kr.attacks.PGD(LINF, returns="last")]}, r"attack\[0\] must evaluate what it finds"),
        ({"n_examples": 26}, "n_examples must be at most the 23 images"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"shard": (3, 2)}, r"shard must be \(i, n\) with 1 <= i <= n"),
        ({"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_bad_arguments(model, changes, message):
    with pytest.raises(ValueError, match=message):
        run(model, **changes)


@pytest.mark.once
def test_what_the_model_cannot_take_is_found_before_the_attack(model):
    narrow = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 9), *model.layers[1:2]])
    with pytest.raises(ValueError, match="model cannot take images of 8 x 8 pixels"):
        run(narrow, resolutions=[16, 8])
    with pytest.raises(ValueError, match=r"must return logits of shape \(batch, classes\)"):
        run(keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 1)]))
    with pytest.raises(ValueError, match="the dataset has 2 classes"):
        run(keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()]))


@pytest.mark.once
def test_report_is_read_back(model, tmp_path):
    report = run(model, threats=[LINF, L2], out=tmp_path)
    again = Report.load(tmp_path)
    again.write_json(tmp_path / "again")
    for name in FILES[:3]:
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    np.testing.assert_array_equal(again[L2, 8].misclassified_at, report[L2, 8].misclassified_at)
