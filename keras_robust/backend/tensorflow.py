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


def compile(function, model):
    if not isinstance(model, keras.Layer):
        return lambda *tensors: function(model, *tensors)
    owner = weakref.ref(model)

    def traced(*tensors):
        return function(lambda x: owner()(x, training=False), *tensors)

    return tf.function(traced, autograph=False)


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
