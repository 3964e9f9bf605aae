import gc
import os
import tempfile

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_ROBUST_COMPILATION_CACHE", "off")
if os.environ["KERAS_BACKEND"] == "jax" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What JAX has compiled serves fresh models, the other test processes and the programs that tests start.
    _compiled = tempfile.TemporaryDirectory(prefix="jax")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import keras
import numpy as np
import pytest
from hypothesis import settings

from keras_robust.models import registry

# The examples are the same in every run; fewer on JAX, which compiles loops anew outside of jit.
examples = 6 if keras.backend.backend() == "jax" else 25
settings.register_profile("suite", deadline=None, derandomize=True, max_examples=examples)
settings.load_profile("suite")

# Frameworks hold hundreds of thousands of objects that no collection of garbage will ever free: out of its sight.
gc.collect()
gc.freeze()


def _registered_models():
    """Models that a test, or a fixture of its module, registers are gone with it."""
    before = dict(registry.ARCHITECTURES)
    yield
    registry.ARCHITECTURES.clear()
    registry.ARCHITECTURES.update(before)


_of_module = pytest.fixture(autouse=True, scope="module")(_registered_models)
_of_test = pytest.fixture(autouse=True)(_registered_models)


@pytest.fixture(autouse=True)
def _fresh_state():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    # Not `free_memory`, a full collection of garbage after every test, which took most of the suite's time.
    keras.backend.clear_session(free_memory=False)


@pytest.fixture
def batch():
    """Eight images (8, 6, 6, 3) in [0, 1], some pixels on the border of the box, and classes in [0, 4]."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.2, 1.2, (8, 6, 6, 3)).clip(0, 1).astype("float32")
    return x, (np.arange(8) % 5).astype("int32")


@pytest.fixture
def model():
    """A small net with everything that an attack must leave alone: batch norm, dropout, weights."""
    inputs = keras.Input((None, None, 3))
    h = keras.layers.Conv2D(6, 3, strides=2, activation="gelu")(inputs)
    h = keras.layers.BatchNormalization()(h)
    h = keras.layers.Dropout(0.3, seed=1)(h)
    h = keras.layers.GlobalAveragePooling2D()(h)
    net = keras.Model(inputs, keras.layers.Dense(5, kernel_initializer="glorot_normal")(h))
    rng = np.random.default_rng(1)
    net.set_weights([w + 0.5 * rng.normal(size=w.shape) if w.dtype == "float32" else w for w in net.get_weights()])
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(6, 0.7))
    return net
