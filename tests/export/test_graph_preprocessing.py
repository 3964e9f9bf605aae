"""Decoding and preprocessing inside a graph, against Pillow."""

import importlib.util
import io
import struct
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust as kr

if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow ops, whatever the backend", allow_module_level=True)

import tensorflow as tf

from keras_robust.export import graph_preprocessing

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def photo():
    """Part of a photograph, (90, 121, 3)."""
    folder = importlib.util.find_spec("skimage").submodule_search_locations[0]
    return kr.data.decode(f"{folder}/data/coffee.png")[100:190, 200:321]


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, form, **options)
    return file.getvalue()


@tf.function(input_signature=[tf.TensorSpec((), tf.string)])
def decode(data):
    return graph_preprocessing.decode(data)


def by_pillow(data, tmp_path):
    (tmp_path / "image").write_bytes(data)
    return kr.data.decode(tmp_path / "image")


def png(width, height, pixels=b""):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_orientation(photo, tmp_path, orientation, byte_order):
    order, mark = ("<", b"II") if byte_order == "little" else (">", b"MM")
    other = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 121, 0)
    stated = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + mark + struct.pack(f"{order}HIH", 42, 8, 2) + other + stated + bytes(4)
    data = encoded(photo, "JPEG", exif=exif, comment=b"before" if orientation % 2 else b"")
    np.testing.assert_array_equal(decode(data), by_pillow(data, tmp_path))


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"progressive": True, "quality": 60}),
        ("PNG", "L", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "1", {}),
        ("PNG", "I;16", {}),
    ],
)
def test_modes(photo, tmp_path, form, mode, options):
    image = Image.fromarray(photo)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 251)
    data = encoded(image if mode == "I;16" else image.convert(mode), form, **options)
    np.testing.assert_array_equal(decode(data), by_pillow(data, tmp_path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must be JPEG or PNG"),
        (b"no image", "must be JPEG or PNG"),
        (b"GIF89a" + bytes(40), "must be JPEG or PNG"),
        (PNG, "1 to 64000000 pixels"),
        (b"\xff\xd8\xff", "JPEG"),
        (png(50_000, 50_000), "1 to 64000000 pixels"),
        (png(0xFFFFFFFF, 5), "1 to 64000000 pixels"),
        (png(1_000_000, 2), "times as long as wide"),
        (png(100, 100, bytes(50)), "PNG"),
    ],
    ids=["empty", "text", "gif", "short png", "short jpeg", "bomb", "negative", "long", "truncated"],
)
def test_refused(data, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(data)


def test_truncated_jpeg(photo):
    data = encoded(photo, "JPEG")
    with pytest.raises(tf.errors.InvalidArgumentError, match="JPEG"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("height", "width", "resolution", "crop_pct"),
    [
        (90, 121, 32, 0.875),
        (90, 121, 64, 1.0),
        (90, 121, 224, 0.875),
        (90, 37, 32, 1.0),  # more than twice as high as wide: Pillow's other order of passes
        (36, 121, 32, 0.875),  # the shorter side fits as it is
        (5, 7, 33, 0.9),
        (1, 1, 32, 1.0),
    ],
)
def test_preprocessing(photo, height, width, resolution, crop_pct, interpolation):
    """On a real photograph at most one level of 255 apart, in at most one of 100 values."""
    image = photo[:height, :width]
    result = graph_preprocessing.resize_and_crop(tf.constant(image), resolution, crop_pct, interpolation)
    expected = kr.data.resize_and_crop(image, resolution, crop_pct, interpolation)
    apart = np.abs(result.numpy().astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.01


@pytest.mark.parametrize(("height", "width", "resolution"), [(90, 121, 33), (36, 121, 64), (7, 5, 32), (90, 90, 90)])
def test_a_crop_without_a_resize(photo, height, width, resolution):
    image = photo[:height, :width]
    result = graph_preprocessing.resize_and_crop(tf.constant(image), resolution, 1.0, "none")
    np.testing.assert_array_equal(result, kr.data.resize_and_crop(image, resolution, 1.0, "none"))


def long_orientation(order, mark):
    stated = struct.pack(f"{order}HHII", 0x0112, 4, 1, 6)
    return mark + struct.pack(f"{order}HIH", 42, 8, 1) + stated + bytes(4)


def block(marker, content):
    return marker + struct.pack(">H", len(content) + 2) + content


WHERE = {
    "behind 20 kB": lambda data: data[:2] + block(b"\xff\xe2", bytes(20_000)) + data[2:],
    "behind 195 kB": lambda data: data[:2] + 3 * block(b"\xff\xe2", bytes(65_000)) + data[2:],
    "behind fill bytes": lambda data: data[:2] + b"\xff\xff" + data[2:],
    "behind a table": lambda data: data[:2] + block(b"\xff\xdb", b"\0" + bytes(range(1, 65))) + data[2:],
}


@pytest.mark.parametrize("where", WHERE)
def test_orientation_wherever_it_stands(photo, tmp_path, where):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = WHERE[where](encoded(photo, "JPEG", exif=exif))
    expected = by_pillow(data, tmp_path)
    assert expected.shape == (121, 90, 3)
    np.testing.assert_array_equal(decode(data), expected)
    # And in training, whose fast way does not look at orientations.
    for name in "ab":
        (tmp_path / "folder" / name).mkdir(parents=True)
        (tmp_path / "folder" / name / "1.jpg").write_bytes(data)
    whole = kr.data.Policy(crop_scale=(1.0, 1.0), aspect_ratio=(0.01, 100.0))
    train = kr.data.TrainPipeline(kr.data.source(tmp_path / "folder", None), whole, 32, batch_size=2)
    images, _ = next(iter(train.dataset()))
    small = np.asarray(Image.fromarray(expected).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    assert np.abs(images.numpy()[0] - small).mean() < 0.02 < np.abs(images.numpy()[0] - np.rot90(small)).mean()


@pytest.mark.parametrize(("order", "mark"), [("<", b"II"), (">", b"MM")])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_orientation_in_four_bytes(photo, tmp_path, order, mark, form):
    data = encoded(photo, form, exif=b"Exif\0\0" + long_orientation(order, mark))
    assert by_pillow(data, tmp_path).shape == (121, 90, 3)
    np.testing.assert_array_equal(decode(data), by_pillow(data, tmp_path))
