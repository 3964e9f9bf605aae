import numpy as np
import pytest
from PIL import Image

from keras_robust.data import decode, preprocessing, resize_and_crop

pytestmark = pytest.mark.once


def gradient(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


def test_known_geometry_of_the_published_preprocessing():
    # 224 / 0.875 = 256: a 256 px image is only cropped, by (256 - 224) / 2 on each side.
    image = gradient(256, 300)
    np.testing.assert_array_equal(resize_and_crop(image, 224), image[16:240, 38:262])


def test_shorter_side_is_resized_and_the_centre_is_kept():
    # Halving a ramp by a symmetric filter samples it between its pixels: x -> 2 x + 0.5, away from the border.
    ramp = np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], (80, 120, 3))
    result = resize_and_crop(np.ascontiguousarray(ramp), 35)  # shorter side 80 -> 40, longer 120 -> 60, centre 35
    left = round((60 - 35) / 2)
    expected = 2 * (2 * np.arange(left, left + 35) + 0.5)
    np.testing.assert_allclose(result[10, :, 0], expected, atol=1)


def test_shrinking_is_antialiased():
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(resize_and_crop(stripes, 24, crop_pct=1.0)[:, 4:-4].astype(int)) <= 2


def test_overshoot_is_clipped_not_wrapped():
    edge = np.zeros((16, 16, 3), np.uint8)
    edge[:, 8:] = 255
    enlarged = resize_and_crop(edge, 64, crop_pct=1.0)
    assert enlarged[:, :28].max() < 30
    assert enlarged[:, 36:].min() > 225


def test_a_fitting_image_needs_no_pillow(monkeypatch):
    monkeypatch.setattr(preprocessing, "pillow", lambda: pytest.fail("Pillow was asked for"))
    image = gradient(32, 32)
    np.testing.assert_array_equal(resize_and_crop(image, 32, crop_pct=1.0), image)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), [[0]], None])
def test_only_raw_rgb_is_accepted(image):
    with pytest.raises(ValueError, match="image must be uint8"):
        resize_and_crop(image, 8)


def test_bilinear_gives_the_means_of_a_triangle():
    # Shrunk by two, a pixel is 1, 3, 3 and 1 eighths of its four neighbours; two of the four are dark here.
    step = np.zeros((16, 16, 3), np.uint8)
    step[:, 9:] = 240
    result = resize_and_crop(step, 8, crop_pct=1.0, interpolation="bilinear")
    np.testing.assert_array_equal(result[4, 3:6, 0], [0, 120, 240])


def test_a_crop_without_a_resize():
    """RobustBench's Crop288: torchvision's `CenterCrop` alone, which puts black around images that are smaller."""
    image = gradient(50, 40)
    np.testing.assert_array_equal(resize_and_crop(image, 20, interpolation="none"), image[15:35, 10:30])
    framed = resize_and_crop(image, 45, interpolation="none")
    np.testing.assert_array_equal(framed[:, 2:42], image[2:47])  # rounded to even: (50 - 45) / 2
    assert framed[:, :2].max() == framed[:, 42:].max() == 0


@pytest.mark.parametrize(
    ("name", "value"), [("resolution", 0), ("crop_pct", 0.0), ("crop_pct", 1.5), ("interpolation", "nearest")]
)
def test_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*; received {value!r}"):
        resize_and_crop(gradient(8, 8), **{"resolution": 8, name: value})


@pytest.mark.parametrize(("mode", "colour"), [("L", 120), ("CMYK", (0, 255, 255, 0)), ("RGBA", (10, 20, 30, 99))])
def test_other_modes_become_rgb(tmp_path, mode, colour):
    path = tmp_path / ("image.png" if mode != "CMYK" else "image.tiff")
    Image.new(mode, (5, 4), colour).save(path)
    expected = {"L": (120, 120, 120), "CMYK": (255, 0, 0), "RGBA": (10, 20, 30)}[mode]
    np.testing.assert_array_equal(decode(path), np.full((4, 5, 3), expected, np.uint8))


def test_palette_with_transparency(tmp_path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "p.png", transparency=b"\x00\x80")
    np.testing.assert_array_equal(decode(tmp_path / "p.png")[0, 0], (200, 100, 50))


def test_sixteen_bit_grey_is_scaled(tmp_path):
    Image.fromarray(np.array([[0, 256, 65535]], np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(decode(tmp_path / "deep.png")[0, :, 0], (0, 1, 255))


def test_exif_orientation_is_applied(tmp_path):
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "turned.png"), np.rot90(image, -1))


def test_unreadable_files_are_named(tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    whole = tmp_path / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(whole)
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole.read_bytes()[:3000])
    for path in (text, cut):
        with pytest.raises(ValueError, match=f"{path.name} cannot be read as an image"):
            decode(path)


def test_size_is_checked_before_decoding(tmp_path, monkeypatch):
    Image.new("1", (1000, 1000)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(preprocessing, "MAX_PIXELS", 999_999)
    monkeypatch.setattr(preprocessing, "_rgb", lambda image: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"bomb.png .* 1000 x 1000 pixels"):
        decode(tmp_path / "bomb.png")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "absent.png")


def test_integers_of_32_bits_have_no_known_range(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)).save(tmp_path / "grey.tif")
    with pytest.raises(ValueError, match=r"grey\.tif cannot be read as an image: 32-bit integer pixels"):
        decode(tmp_path / "grey.tif")
