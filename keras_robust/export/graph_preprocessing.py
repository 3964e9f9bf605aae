"""Preprocessing of encoded image files to the pixels that a model sees, as TensorFlow ops inside a SavedModel.

The same as `kr.data.decode` and `kr.data.resize_and_crop`, which evaluation uses and which run on Pillow: accurate
inverse DCT, EXIF orientation, bicubic (a = -0.5) or bilinear, widened when shrinking, in two passes, each rounded to
8 bits, centre crop. Measured against them, decoded pixels of JPEG and PNG files are equal, and resized ones differ by
one level of 255 (rarely two) in a few of ten thousand.

A file's size is read from its header before it is decoded. `tf.errors.InvalidArgumentError` refuses what is no JPEG or
PNG, has more than `MAX_PIXELS`, or is more than `MAX_ASPECT` times as long as wide (resizing would blow it up).
"""

from typing import Any

import PIL
import tensorflow as tf

from keras_robust.data.preprocessing import MAX_PIXELS

# Which of Pillow's two passes comes first: that along rows of pixels, but since release 13 the other one where the
# height shrinks by far more pixels (found by trying 700 pairs of sizes): on images more than twice as high as wide.
ROWS_FIRST = int(PIL.__version__.split(".")[0]) >= 13
MAX_ASPECT = 100
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def decode_and_preprocess(files: Any, resolution: Any, crop_pct: Any, interpolation: Any) -> Any:
    """Encoded files, strings (batch,), to uint8 images (batch, resolution, resolution, 3)."""
    return tf.map_fn(
        lambda data: resize_and_crop(decode(data), resolution, crop_pct, interpolation),
        files,
        fn_output_signature=tf.TensorSpec((resolution, resolution, 3), tf.uint8),
        parallel_iterations=2,  # bounds the memory of images of the largest size
    )


def decode(data: Any) -> Any:
    """One encoded file, a scalar string, to a uint8 RGB image (height, width, 3), upright."""
    is_jpeg = tf.strings.substr(data, 0, len(JPEG)) == JPEG
    is_png = tf.strings.substr(data, 0, len(PNG)) == PNG
    known = tf.debugging.Assert(is_jpeg | is_png, ["images must be JPEG or PNG files"], name="format")
    with tf.control_dependencies([known]):
        size = tf.cond(is_jpeg, lambda: tf.image.extract_jpeg_shape(data)[:2], lambda: _png_size(data))
    size = tf.cast(size, tf.int64)
    checks = [
        tf.debugging.Assert(
            (tf.reduce_min(size) > 0) & (tf.reduce_prod(size) <= MAX_PIXELS),
            [f"images must have 1 to {MAX_PIXELS} pixels; received height and width", size],
            name="size",
        ),
        tf.debugging.Assert(
            tf.reduce_max(size) <= MAX_ASPECT * tf.reduce_min(size),
            [f"images must be at most {MAX_ASPECT} times as long as wide; received height and width", size],
            name="aspect",
        ),
    ]
    with tf.control_dependencies(checks):
        image = tf.cond(
            is_jpeg,
            lambda: tf.image.decode_jpeg(data, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"),
            lambda: tf.image.decode_png(data, channels=3),
        )
        return _upright(image, exif_orientation(data))


def resize_and_crop(image: Any, resolution: Any, crop_pct: Any, interpolation: Any) -> Any:
    """Shorter side to floor(resolution / crop_pct) , then centre crop: uint8 (resolution, resolution, 3).

    With interpolation "none" only the crop, with black around smaller images.
    """
    if interpolation == "none":
        missing = tf.maximum(resolution - tf.shape(image)[:2], 0)
        image = tf.pad(image, tf.concat([tf.stack([missing // 2, (missing + 1) // 2], 1), [[0, 0]]], 0))
        return _centre(image, resolution)
    size = tf.shape(image, tf.int64)[:2]
    target = int(resolution / crop_pct)
    height, width = tf.unstack(tf.cast(target * size // tf.reduce_min(size), tf.int32))
    # Pillow's two passes, each rounded and clipped to 8 bits.
    rows, columns = tf.unstack(tf.cast(size, tf.int32))
    rows_first = ROWS_FIRST & (rows > height) & (rows - height > 2 * (columns - width))
    image = _resize(image, tf.where(rows_first, height, rows), tf.where(rows_first, columns, width), interpolation)
    image = _resize(image, height, width, interpolation)
    return _centre(image, resolution)


def _centre(image: Any, resolution: Any) -> Any:
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    top, left = tf.unstack(tf.cast(tf.round((sides - resolution) / 2), tf.int32))
    return tf.ensure_shape(image[top : top + resolution, left : left + resolution], (resolution, resolution, 3))


def exif_orientation(data: Any) -> Any:
    """The EXIF orientation of a JPEG or PNG file, 1 to 8, or 1 where none is stated; int32.

    Exif 2.32, sections 4.6 and 4.7; PNG's third edition, 11.3.4.6. A JPEG's block may stand anywhere before the pixels.
    """
    content = tf.io.decode_raw(data, tf.uint8)
    last = tf.size(content) - 1

    def byte(index: Any) -> Any:
        return tf.cast(tf.gather(content, tf.clip_by_value(index, 0, last)), tf.int32)

    def two(index: Any, big_endian: Any) -> Any:
        first, second = byte(index), byte(index + 1)
        return tf.where(big_endian, 256 * first + second, 256 * second + first)

    def is_text(at: Any, text: bytes) -> Any:
        return tf.reduce_all(byte(at + tf.range(len(text))) == list(text))

    def jpeg_goes_on(at: Any) -> Any:
        """Whether there is a marker at `at`, other than that of the EXIF block or of the pixels."""
        marker = byte(at + 1)
        pixels = (marker == 0xDA) | (marker == 0xD9)
        exif = (marker == 0xE1) & is_text(at + 4, b"Exif\0\0")
        return (at < last) & (byte(at) == 0xFF) & ~pixels & ~exif

    def jpeg_next(at: Any) -> Any:
        """The next marker: behind a fill byte, a marker that stands alone, or a block and its length."""
        marker = byte(at + 1)
        alone = (marker == 0x01) | (marker // 8 == 0xD0 // 8)
        return at + tf.where(marker == 0xFF, 1, tf.where(alone, 2, 2 + two(at + 2, True)))

    def png_length(at: Any) -> Any:
        return two(at, True) * 65536 + two(at + 2, True)

    def png_goes_on(at: Any) -> Any:
        length = png_length(at)
        valid = (two(at, True) < 32768) & (length <= last - at)
        return (at < last) & valid & ~is_text(at + 4, b"eXIf") & ~is_text(at + 4, b"IEND")

    is_png = is_text(0, PNG)
    at_jpeg = tf.while_loop(jpeg_goes_on, jpeg_next, [tf.where(is_png, last, 2)])[0]
    at_png = tf.while_loop(png_goes_on, lambda at: at + 12 + png_length(at), [tf.where(is_png, len(PNG), last)])[0]
    found = tf.where(is_png, is_text(at_png + 4, b"eXIf"), is_text(at_jpeg + 4, b"Exif\0\0") & (at_jpeg < last))
    start = tf.where(is_png, at_png + 8, at_jpeg + 10)  # of the TIFF header, from which its offsets count
    big_endian = byte(start) == ord("M")
    directory = start + tf.where(big_endian, two(start + 6, True), two(start + 4, False))
    entries = directory + 2 + 12 * tf.range(tf.minimum(two(directory, big_endian), 512))
    kind = two(entries + 2, big_endian)
    short, long = 3, 4  # an unsigned number of two bytes, or of four
    is_orientation = (two(entries, big_endian) == 0x0112) & ((kind == short) | (kind == long)) & (entries + 11 <= last)
    low = entries + tf.where((kind == long) & big_endian, 10, 8)
    stated = tf.reduce_max(tf.where(is_orientation, two(low, big_endian), 0))
    return tf.where(found & (stated >= 1) & (stated <= 8), stated, 1)


def _upright(image: Any, orientation: Any) -> Any:
    """Undo an EXIF orientation: transpose from 5 upwards, then mirror."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(tf.reduce_any(orientation == [2, 3, 6, 7]), lambda: tf.reverse(image, [1]), lambda: image)
    return tf.cond(tf.reduce_any(orientation == [3, 4, 7, 8]), lambda: tf.reverse(image, [0]), lambda: image)


def _png_size(data: Any) -> Any:
    """Height and width from the first block of a PNG file."""
    fields = tf.io.decode_raw(tf.strings.substr(data + b"\0" * 24, 16, 8), tf.int32, little_endian=False)
    return tf.reverse(fields, [0])


def _resize(image: Any, height: Any, width: Any, interpolation: Any) -> Any:
    resized = tf.image.resize(image[None], (height, width), interpolation, antialias=True)[0]
    return tf.saturate_cast(tf.floor(resized + 0.5), tf.uint8)  # halves upwards, as Pillow rounds
