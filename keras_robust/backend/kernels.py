"""Layer normalisation and exact GELU: of our own where Keras' are slow, Keras' where they are not.

`layer_norm(x, gamma, beta, epsilon)`
    Normalises the last axis of `x` (..., channels); statistics in float32 (at least), result in the dtype of `x`.
`gelu(x)`
    `x * Phi(x)`, exact; dtype of `x`.
"""

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    from keras_robust.backend.kernels_tensorflow import gelu, layer_norm
else:

    def layer_norm(x, gamma, beta, epsilon):
        if keras.backend.backend() == "torch":
            return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)
        # Not Keras' x * scale + (beta - mean * scale), which loses the digits that mean and x have in common.
        wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        centred = wide - ops.mean(wide, axis=-1, keepdims=True)
        scale = ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + epsilon)
        return ops.cast(centred * scale * gamma + beta, x.dtype)

    def gelu(x):
        return ops.gelu(x, approximate=False)


__all__ = ["gelu", "layer_norm"]
