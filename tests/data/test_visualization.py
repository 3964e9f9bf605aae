import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust.data as data


def test_contact_sheet_has_one_row_per_class(tmp_path):
    source = data.photo_crops("val", per_class=2)
    path = data.contact_sheet(source, tmp_path / "sheet.png", per_class=3, resolution=16)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[0] == 4 + 10 * 20
    first = data.resize_and_crop(source.image(0), 16, crop_pct=1.0)
    right = sheet.shape[1] - 3 * 20
    np.testing.assert_array_equal(sheet[4:20, right : right + 16], first)
    assert sheet[4:20, -20:].min() == 255  # the class has no third image


@pytest.mark.parametrize("channels", [1, 3])
def test_attack_sheet_shows_both_images_and_the_difference(channels):
    x = np.full((2, 4, 4, channels), 0.2, np.float32)
    x_adv = x.copy()
    x_adv[1, 0, 0] += 4 / 255
    x_adv[1, 3, 3] -= 2 / 255
    sheet = data.attack_sheet(x, x_adv, enlarge=2)
    assert sheet.shape == (3 * 8 + 2 * 2, 2 * 8 + 2, 3)
    assert (sheet[:8, :8] == 51).all()
    assert (sheet[:, 8:10] == 255).all()
    np.testing.assert_array_equal(sheet[10:12, 10:12], 55)
    assert (sheet[20:, :8] == 128).all()  # an untouched image is mid-grey, not 0 / 0
    np.testing.assert_array_equal(sheet[20:22, 10:12], 255)
    np.testing.assert_array_equal(sheet[-2:, -2:], 64)


def test_attack_sheet_needs_matching_images():
    with pytest.raises(ValueError, match=r"received shapes \(1, 4, 4, 3\) and \(1, 5, 5, 3\)"):
        data.attack_sheet(np.zeros((1, 4, 4, 3)), np.zeros((1, 5, 5, 3)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the input pipeline is TensorFlow's")
def test_contact_sheet_of_a_pipeline_shows_what_it_gives(tmp_path):
    pytest.importorskip("tensorflow")
    pipeline = data.TrainPipeline(data.photo_crops("train", per_class=4), "basic", 16, 20)
    sheet = np.asarray(Image.open(data.contact_sheet(pipeline, tmp_path / "sheet.png", per_class=2, resolution=16)))
    images, labels = next(iter(pipeline.dataset()))
    label = int(labels.numpy()[0].argmax())
    top, left = 4 + 20 * label, sheet.shape[1] - 2 * 20
    np.testing.assert_array_equal(sheet[top : top + 16, left : left + 16], np.round(images.numpy()[0] * 255))
