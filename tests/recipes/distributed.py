"""What test_distribution.py runs on one device, on several and in several processes: a short training and a run.

python -m tests.recipes.distributed FOLDER IMAGES.npz KIND DEVICES: on DEVICES virtual devices per process; the
environment names the other processes. Process i writes FOLDER/fit-i.npz; all write the run FOLDER/run. On PyTorch,
where there is a process for each device, the run is told to end, goes on, and loses one of its processes.
"""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

import keras_robust as kr
from keras_robust.data.sampler import shard_slice
from keras_robust.layers.regularization import StochasticDepth
from keras_robust.models import registry
from keras_robust.recipes import (
    AttackConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Preempted,
    Recipe,
    TrainingConfig,
    callbacks,
)
from tests.devices import virtual_devices
from tests.recipes import tiny

TORCH = keras.backend.backend() == "torch"
BATCH = 8
# The last batches do not divide evenly; between processes on JAX they must.
COUNTS = {"tensorflow": (23, 9), "jax": (22, 14), "torch": (23, 12)}


def network():
    inputs = keras.Input((None, None, 3))
    h = keras.layers.Conv2D(6, 3, strides=2, activation="gelu", kernel_initializer="he_normal")(inputs)
    h = StochasticDepth(0.3, seed=3)(keras.layers.BatchNormalization()(h))
    return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(h)))


def adversarial(model):
    threat = kr.ThreatModel("Linf", 0.1)
    attack = kr.attacks.PGD(threat, n_iter=1, random_start=True)
    strong = kr.attacks.PGD(kr.ThreatModel("Linf", 0.02), n_iter=1, random_start=True, returns="misclassified")
    return kr.AdversarialModel(model, attack, validation_attack=strong, ema_decay=0.5)


def parts(distribution, *arrays):
    """This process' part of each global batch."""
    batches = [np.arange(start, min(start + BATCH, len(arrays[0]))) for start in range(0, len(arrays[0]), BATCH)]
    return [tuple(a[rows[shard_slice(distribution.shard, len(rows))]] for a in arrays) for rows in batches]


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def dataset(distribution, *arrays):
    batches = parts(distribution, *arrays)
    if keras.backend.backend() != "tensorflow":
        return distribution.batches(Batches(batches))
    import tensorflow as tf

    spec = tuple(tf.TensorSpec((None, *array.shape[1:]), array.dtype) for array in batches[0])
    data = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=spec)
    return distribution.batches(data.apply(tf.data.experimental.assert_cardinality(len(batches))))


def refusals():
    """What `compile` says to what Keras cannot do on several TensorFlow replicas."""
    optimizer, loss = keras.optimizers.SGD, keras.losses.CategoricalCrossentropy
    plain = optimizer(), loss(from_logits=True)
    trainer = adversarial(network())
    attempts = {
        "jit_compile": lambda: trainer.compile(*plain, jit_compile=True),
        "steps_per_execution": lambda: trainer.compile(*plain, steps_per_execution=2),
        "gradient_accumulation_steps": lambda: trainer.compile(optimizer(gradient_accumulation_steps=2), plain[1]),
        "global_clipnorm": lambda: trainer.compile(optimizer(global_clipnorm=1.0), plain[1]),
        "reduction": lambda: trainer.compile(plain[0], loss(from_logits=True, reduction="sum")),
        "mixed_float16": lambda: trainer.compile(keras.optimizers.LossScaleOptimizer(optimizer()), plain[1]),
    }
    return {name: message(attempt) for name, attempt in attempts.items()}


def message(attempt):
    try:
        attempt()
    except ValueError as error:
        return str(error)
    return "nothing"


def recipe(distribution, folder, source):
    """A whole run: augmentation with mixup, averages, validation under attack, checkpoints."""
    if "smallest" not in registry.names():
        registry.register("smallest", registry.IsotropicConvNeXt(1, 16))
    run = Recipe(
        "smallest",
        model=ModelConfig("smallest"),
        data=DataConfig(str(source), policy="heavy", resolution=16, batch_size=8, workers=0),
        training=TrainingConfig(epochs=2, steps_per_epoch=3, learning_rate=1e-2, ema_decay=0.5, precision="float32"),
        attack=AttackConfig("apgd", n_iter=1),
        evaluation=EvaluationConfig(n_examples=16, n_iter=1),
        checkpoints=CheckpointConfig(every_steps=2, keep_last=9),
    )
    kr.recipes.train(run, folder, distribution=distribution, verbose=False)


def fit(distribution, path):
    rng = np.random.default_rng(0)
    train_count, validation_count = COUNTS[keras.backend.backend()]
    x, weight = rng.random((24, 6, 6, 3), "float32"), rng.uniform(0.1, 2.0, 24).astype("float32")
    y = (0.8 * np.eye(5)[np.arange(24) % 5] + 0.04).astype("float32")
    keras.utils.set_random_seed(1 + distribution.process if TORCH else 1)  # there the weights of process 0 count
    with distribution.scope():
        trainer = adversarial(network())
        trainer.compile(
            keras.optimizers.AdamW(0.01, gradient_accumulation_steps=2 if TORCH else None),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        train = dataset(distribution, x[:train_count], y[:train_count], weight[:train_count])
        validation = dataset(distribution, x[:validation_count], y[:validation_count])
        history = trainer.fit(train, epochs=2, shuffle=False, validation_data=validation, verbose=0).history
        dark = x[:BATCH].copy()
        dark[-1, 0, 0, 0] = -1.0
        bad = message(lambda: trainer.evaluate(dataset(distribution, dark, y[:BATCH]), verbose=0))
        said = refusals() if distribution.kind == "mirrored" else {}
    outcome = {
        "history": history,
        "bad": bad,
        "refused": said,
        "any": [distribution.any(distribution.process == 1), distribution.any(False)],
        "line": kr.training.distribution.describe(distribution),
    }
    variables = {v.path: keras.ops.convert_to_numpy(v) for v in trainer.variables if "/" in v.path}
    np.savez(path, outcome=json.dumps(outcome), **{str(i): value for i, value in enumerate(variables.values())})


def killed(distribution, folder, source):
    """One process is told to end at step 3, which both do; when they go on it is killed at step 5."""
    callbacks.AGREE_EVERY = 1
    for step, number in ((3, signal.SIGTERM), (5, signal.SIGKILL)):
        if distribution.process == 1:
            tiny.at_step(step, lambda number=number: os.kill(os.getpid(), number))
        try:
            recipe(distribution, folder, source)
        except Preempted:
            assert step == 3


def both(distribution, folder, source):
    fit(distribution, folder / f"fit-{distribution.process}.npz")
    (killed if TORCH and distribution.processes > 1 else recipe)(distribution, folder / "run", source)


if __name__ == "__main__":
    out, images, kind, devices = sys.argv[1:]
    virtual_devices(int(devices))
    started = kr.training.distribution.start(kind)
    both(started, Path(out), images)
    started.stop()
