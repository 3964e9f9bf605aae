"""Dense layer."""

import keras

from keras_robust.backend import kernels


@keras.saving.register_keras_serializable("keras_robust")
class Dense(keras.layers.Dense):
    """`keras.layers.Dense`, faster on TensorFlow: the same arguments, weights and result.

    One product of matrices whatever the rank of the input, with the bias added in the same pass, and a gradient with
    respect to the input that does not rearrange the kernel at each call.

    Shapes: `(..., channels)` to `(..., units)`.

    Example:

    >>> y = Dense(384)(keras.random.normal((2, 8, 8, 96)))
    """

    def call(self, inputs, training=None):
        y = kernels.dense(inputs, self.kernel, self.bias)
        return y if self.activation is None else self.activation(y)
