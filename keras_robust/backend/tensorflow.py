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
        # A height or width that the model leaves open stays open in the graph, which then serves every resolution.
        traced = compiled.get_concrete_function(_spec(images, open_shape), *map(tf.TensorSpec.from_tensor, tensors))
        return traced(images, *tensors)

    return run


def _spec(images, model_shape):
    shape = list(images.shape)
    if isinstance(model_shape, tuple) and len(model_shape) == len(shape):
        shape[1:] = [None if size is None else known for size, known in zip(model_shape[1:], shape[1:])]
    return tf.TensorSpec(shape, images.dtype)


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
        return self.training_logs(logs)

    def test_step(self, data):
        self.measure(self._frozen, data)
        return super().test_step(data)

    def _frozen(self, x):
        return self.model(x, training=False)
