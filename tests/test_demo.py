"""The demo: attacks of a photograph, and the page, driven by its own client where Gradio is installed."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_robust as kr
from keras_robust import demo
from keras_robust.data.preprocessing import resize_and_crop

rng = np.random.default_rng(0)
PHOTO = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)


def net(seed, classes=4):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, 3))
    outputs = keras.layers.Dense(classes)(keras.layers.GlobalAveragePooling2D()(inputs))
    return keras.Model(inputs, outputs)


def two_models():
    return demo.PhotoAttack({"clean": net(0), "robust": net(1)}, 16, 1.0, names=["ant", "bee", "cat", "dog"], n_iter=3)


@pytest.fixture(scope="module")
def attack():
    return two_models()


def test_both_models_are_attacked_within_the_radius(attack):
    found = attack(PHOTO, "Linf", 8 / 255)
    assert list(found) == ["clean", "robust"]
    for one in found.values():
        np.testing.assert_array_equal(one.image, resize_and_crop(PHOTO, 16, 1.0))
        change = one.adversarial.astype(int) - one.image
        assert 0 < np.abs(change).max() <= 8
        assert 0 < one.norm <= 8 / 255 + 1e-6
        # Amplified: the largest change becomes black or white, and signs stay.
        assert {one.difference.min(), one.difference.max()} & {0, 255}
        strong = np.abs(change) > 2
        np.testing.assert_array_equal(one.difference[strong] > 127, change[strong] > 0)
        assert sum(one.before.values()) == pytest.approx(1, abs=1e-5)
        assert one.misclassified == (next(iter(one.before)) != next(iter(one.after)))


def test_answers_are_the_models(attack):
    x = resize_and_crop(PHOTO, 16, 1.0)[None].astype("float32") / 255
    logits = keras.ops.convert_to_numpy(attack.models["clean"](x))[0]
    before = attack(PHOTO, "L2", 0.5)["clean"].before
    assert next(iter(before)) == attack.names[logits.argmax()]
    shares = np.exp(logits) / np.exp(logits).sum()
    assert before == pytest.approx(dict(zip(attack.names, shares)), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PHOTO, "Linf", 33 / 255), "eps must be above 0 and at most 0.1255 under Linf"),
        ((PHOTO, "Linf", 0.0), "eps must be above 0"),
        ((PHOTO, "L2", float("nan")), "eps must be above 0"),
        ((PHOTO, "L7", 1.0), "norm must be one of Linf, L2, L1; received 'L7'"),
        ((__file__, "L2", 1.0), "the photograph cannot be read as an image"),
    ],
)
def test_what_is_out_of_bounds_is_refused(attack, arguments, message):
    with pytest.raises(ValueError, match=message):
        attack(*arguments)


def test_models_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"models must have the same classes; received \{'a': 4, 'b': 5\}"):
        demo.PhotoAttack({"a": net(0), "b": net(0, 5)}, 16)
    with pytest.raises(ValueError, match="models must be one or two; received 0"):
        demo.PhotoAttack({}, 16)
    one, other = kr.adapt(net(0), "0..1", class_names="abcd"), kr.adapt(net(0), "0..1", class_names="abdc")
    with pytest.raises(ValueError, match="the same classes in one order, a, b, c, d"):
        demo.PhotoAttack({"one": one, "other": other}, 16)


def test_the_page_by_its_client(tmp_path):
    """In a process of its own: Gradio leaves sockets and loops open."""
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "tests.test_demo", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("two models, two refusals\n")


def drive(folder):
    from gradio_client import Client, handle_file
    from PIL import Image

    attack, photos = two_models(), demo.bundled_photos(folder, 16)
    blocks = demo.page(attack, photos)
    assert blocks.delete_cache == (demo.KEPT_SECONDS, demo.KEPT_SECONDS)
    _, address, _ = demo.launch(blocks, prevent_thread_lock=True, quiet=True, allowed_paths=[str(folder)])
    assert address.startswith("http://127.0.0.1:"), address
    client = Client(address, verbose=False, download_files=str(folder))
    found = client.predict(handle_file(str(photos[0])), "Linf", 8, api_name="/attack")
    assert len(found) == 2 * 6, found
    for name, cells in {"clean": found[:6], "robust": found[6:]}.items():
        said, before, after, *pictures = cells
        expected = attack(photos[0], "Linf", 8 / 255)[name]
        assert (before["label"], after["label"]) == (next(iter(expected.before)), next(iter(expected.after)))
        assert said.startswith("Now taken for" if expected.misclassified else "**The answer stays**"), said
        for path, pixels in zip(pictures, (expected.image, expected.adversarial, expected.difference), strict=True):
            with Image.open(path) as picture:
                assert picture.size == (224, 224)
                np.testing.assert_array_equal(np.asarray(picture.convert("RGB"))[::14, ::14], pixels)
    for photo, message in ((None, "Choose a photograph first"), (handle_file(str(photos[0])), "eps must be above 0")):
        with pytest.raises(Exception, match=message):
            client.predict(photo, "Linf", 80, api_name="/attack")
    blocks.close()
    print("two models, two refusals")


if __name__ == "__main__":
    drive(Path(sys.argv[1]))
