"""Weight initialisation."""

import keras


def truncated_normal():
    """Truncated normal of standard deviation 0.02, for the weights of convolutions and dense layers."""
    # A fresh object for each weight: a Keras initializer returns the same numbers each time it is called.
    return keras.initializers.TruncatedNormal(stddev=0.02)
