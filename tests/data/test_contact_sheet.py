import numpy as np
from PIL import Image

import keras_robust.data as data


def test_one_row_per_class(tmp_path):
    source = data.photo_crops("val", per_class=2)
    path = data.contact_sheet(source, tmp_path / "sheet.png", per_class=3, resolution=16)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[0] == 4 + 10 * 20
    first = data.resize_and_crop(source.image(0), 16, crop_ratio=1.0)
    right = sheet.shape[1] - 3 * 20
    np.testing.assert_array_equal(sheet[4:20, right : right + 16], first)
    assert sheet[4:20, -20:].min() == 255  # the class has no third image
