"""The operations of RandAugment on one uint8 image, in TensorFlow, with Pillow's arithmetic.

What the operations mean is what Pillow does (the published pipelines run on it), so the same integer arithmetic and
the same truncations stand here, or Pillow itself where that is faster: TensorFlow has no bicubic warp, gathering its
sixteen neighbours was slower, and so was looking values up in a table. Pillow releases Python's lock while it works.

Each takes an image, uint8 (height, width, 3), and `magnitude`, a float scalar in [-10, 10] whose sign is that of the
operation where it has one, and returns an image of the same shape.
"""

import numpy as np
import tensorflow as tf

from keras_robust.data.preprocessing import pillow


def auto_contrast(image, magnitude):
    """Stretch each channel so that its darkest pixel becomes 0 and its brightest 255."""
    return _by_pillow(lambda picture: pillow()[1].autocontrast(picture), image)


def equalize(image, magnitude):
    """Spread each channel's histogram evenly over [0, 255]."""
    return _by_pillow(lambda picture: pillow()[1].equalize(picture), image)


def invert(image, magnitude):
    """255 minus each value."""
    return 255 - image


def posterize(image, magnitude):
    """Keep the upper 4 - int(4 m / 10) bits. At m = 10 that is none: black, as in the published pipeline."""
    bits = 4 - tf.cast(4.0 * tf.abs(magnitude) / 10.0, tf.int32)
    mask = 256 - tf.bitwise.left_shift(1, 8 - bits)
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def solarize(image, magnitude):
    """Invert the values from 256 - int(256 m / 10) upwards."""
    threshold = 256 - tf.cast(256.0 * tf.abs(magnitude) / 10.0, tf.int32)
    # 255 - v is v with all bits flipped. A threshold of 256, for m = 0, is beyond 8 bits.
    bright = tf.cast(image >= tf.cast(tf.minimum(threshold, 255), tf.uint8), tf.uint8)
    return tf.bitwise.bitwise_xor(image, bright * tf.where(threshold > 255, tf.constant(0, tf.uint8), 255))


def solarize_add(image, magnitude):
    """Add min(128, int(110 m / 10)) to the values below 128."""
    added = tf.minimum(tf.cast(110.0 * tf.abs(magnitude) / 10.0, tf.int32), 128)
    return image + tf.cast(image < 128, tf.uint8) * tf.cast(added, tf.uint8)


def color(image, magnitude):
    """Away from (or towards) the grey image."""
    return _blend(tf.cast(_luma(image), tf.float32)[..., None], image, magnitude)


def contrast(image, magnitude):
    """Away from (or towards) the mean of the grey image."""
    mean = tf.reduce_mean(tf.cast(_luma(image), tf.float64))
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), image, magnitude)


def brightness(image, magnitude):
    """Away from (or towards) black."""
    return _blend(tf.constant(0.0), image, magnitude)


def sharpness(image, magnitude):
    """Away from (or towards) the image smoothed by a 3 x 3 kernel of weight 5 in the centre; borders are kept."""
    kernel = np.ones((3, 3, 3, 1), np.float32)
    kernel[1, 1] = 5.0
    pixels = tf.cast(image, tf.float32)
    inner = tf.nn.depthwise_conv2d(pixels[None], kernel / np.float32(13), [1, 1, 1, 1], "VALID")[0]
    inner = tf.floor(tf.clip_by_value(inner + 0.5, 0.0, 255.0))
    middle = tf.concat([pixels[1:-1, :1], inner, pixels[1:-1, -1:]], axis=1)
    return _blend(tf.concat([pixels[:1], middle, pixels[-1:]], axis=0), image, magnitude)


def rotate(image, magnitude):
    """By +-30 m / 10 degrees about the centre."""
    return _warp(image, "rotate", magnitude)


def shear_x(image, magnitude):
    """Rows are shifted by +-0.3 m / 10 of their height in the image."""
    return _warp(image, "shear_x", magnitude)


def shear_y(image, magnitude):
    """Columns are shifted by +-0.3 m / 10 of their place in the image."""
    return _warp(image, "shear_y", magnitude)


def translate_x(image, magnitude):
    """Shifted sideways by +-0.45 m / 10 of the width."""
    return _warp(image, "translate_x", magnitude)


def translate_y(image, magnitude):
    """Shifted up or down by +-0.45 m / 10 of the height."""
    return _warp(image, "translate_y", magnitude)


FUNCTIONS = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
}
# From the magnitude, of 1, and the size of the image to Pillow's (a, b, c, d, e, f): the pixel at (x, y) of the result
# is that at (a x + b y + c, d x + e y + f).
_AFFINE = {
    "shear_x": lambda m, width, height: (1, 0.3 * m, 0, 0, 1, 0),
    "shear_y": lambda m, width, height: (1, 0, 0, 0.3 * m, 1, 0),
    "translate_x": lambda m, width, height: (1, 0, 0.45 * m * width, 0, 1, 0),
    "translate_y": lambda m, width, height: (1, 0, 0, 0, 1, 0.45 * m * height),
}


def resize_and_flip(crop, resolution, flip):
    """A crop at the resolution, by the filter of evaluation preprocessing, and mirrored where `flip` holds."""
    image = tf.numpy_function(_resize_and_flip, [crop, resolution, flip], tf.uint8, stateful=False)
    return tf.ensure_shape(image, (resolution, resolution, 3))


def _resize_and_flip(crop, resolution, flip):
    images, _ = pillow()
    image = images.fromarray(crop).resize((int(resolution),) * 2, images.Resampling.BICUBIC)
    return np.asarray(image.transpose(images.Transpose.FLIP_LEFT_RIGHT) if flip else image)


def _warp(image, kind, magnitude):
    def warp(picture, magnitude):
        images, m = pillow()[0], float(magnitude) / 10.0
        bicubic, black = images.Resampling.BICUBIC, (0, 0, 0)
        if kind == "rotate":
            return picture.rotate(30.0 * m, bicubic, fillcolor=black)
        matrix = _AFFINE[kind](m, *picture.size)
        return picture.transform(picture.size, images.Transform.AFFINE, matrix, bicubic, fillcolor=black)

    return _by_pillow(warp, image, magnitude)


def _by_pillow(function, image, *arguments):
    """`function` of the image as Pillow's, and of scalars; it gives an image of the same size."""

    def run(image, *arguments):
        return np.asarray(function(pillow()[0].fromarray(image), *arguments))

    return tf.ensure_shape(tf.numpy_function(run, [image, *arguments], tf.uint8, stateful=False), image.shape)


def _luma(image):
    """Pillow's grey, int32 (height, width): ITU-R 601-2 in 16-bit fixed point."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    return tf.bitwise.right_shift(red * 19595 + green * 38470 + blue * 7471 + 0x8000, 16)


def _blend(degenerate, image, magnitude):
    """`degenerate` and the image, the latter with weight 1 + 0.9 m / 10, at least 0.1, truncated to 8 bits."""
    # In double precision up to here, as in Python: truncation shows the last bit of the factor.
    factor = tf.cast(tf.maximum(1.0 + 0.9 * tf.cast(magnitude, tf.float64) / 10.0, 0.1), tf.float32)
    blended = degenerate + factor * (tf.cast(image, tf.float32) - degenerate)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)
