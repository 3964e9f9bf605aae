"""TensorFlow: GradientTape, tf.function, stateful training step."""

import weakref

import keras
import tensorflow as tf


def input_gradient(function, x):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        losses, aux = function(x)
    return losses, aux, tape.gradient(losses, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


# The graph of a model's forward pass, of which all attacks on the model are built: most of a compilation is tracing it.
_forward: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def compile(function, model):
    if not isinstance(model, keras.Layer):
        return lambda *tensors: function(model, *tensors)
    if model not in _forward:
        owner = weakref.ref(model)
        _forward[model] = tf.function(lambda x: owner()(x, training=False), autograph=False)
    frozen = _forward[model]
    compiled = tf.function(lambda *tensors: function(frozen, *tensors), autograph=False)
    open_shape = getattr(model, "input_shape", None)

    def run(images, *tensors):
        # What the model leaves open, batch, height or width, stays open in the graph, which then serves every batch
        # and every resolution.
        sizes = tuple(images.shape)
        model_shape = open_shape if isinstance(open_shape, tuple) and len(open_shape) == len(sizes) else sizes
        opened = [None if free is None else known for free, known in zip(model_shape, sizes)]

        def spec(tensor):
            shape = list(tensor.shape)
            if shape == list(sizes):
                shape = opened
            elif shape[:1] == [sizes[0]]:
                shape[0] = opened[0]
            return tf.TensorSpec(shape, tensor.dtype)

        return compiled.get_concrete_function(*map(spec, (images, *tensors)))(images, *tensors)

    return run


def concrete(x):
    return not tf.is_tensor(x) or hasattr(x, "numpy")


def on_host(function, x, width):
    return tf.ensure_shape(tf.numpy_function(function, [x], tf.float32), (x.shape[0], width))


class TrainStep:
    def train_step(self, data):
        data = self.attack_batch(self._frozen, self.counter.value, data)
        self.counter.assign_add(1)
        averages = self.averages_to_hold()
        before = [tf.identity(average.value) for average in averages]
        updates = self.optimizer.iterations if averages else None
        logs = super().train_step(data)
        if averages:
            updated = tf.not_equal(self.optimizer.iterations, updates)
            for average, value in zip(averages, before):
                average.assign(tf.where(updated, average.value, value))
        self.update_averages()
        return self.training_logs(logs)

    def test_step(self, data):
        self.measure(self._frozen, data)
        return super().test_step(data)

    def _frozen(self, x):
        return self.model(x, training=False)
