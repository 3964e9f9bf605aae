"""Layer normalisation and exact GELU on PyTorch: Keras' own, which are PyTorch's."""

from keras import ops


def layer_norm(x, gamma, beta, epsilon):
    return ops.layer_normalization(x, gamma, beta, epsilon=epsilon)


def gelu(x):
    return ops.gelu(x, approximate=False)
