"""AdversarialModel against Keras' own training step, against itself with other batch sizes, and through its life."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import keras_robust as kr

CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy
BACKEND = keras.backend.backend()


def _attack(eps=0.1, **options):
    return kr.attacks.APGD(kr.ThreatModel("Linf", eps), n_iter=2, **options)


def _twin(model):
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    return twin


def _plain(dropout=False):
    """A net without batch statistics, which no two batch sizes share."""
    inputs = keras.Input((None, None, 3))
    h = keras.layers.Conv2D(6, 3, strides=2, activation="gelu", kernel_initializer="he_normal")(inputs)
    h = keras.layers.Dropout(0.5, seed=4)(h) if dropout else h
    return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(h)))


def _weights(model):
    return [ops.convert_to_numpy(v.value) for v in model.variables]


@pytest.mark.parametrize(("jit", "labels"), [(False, "hard"), (False, "soft"), (False, "weighted"), (True, "weighted")])
def test_step_with_eps_zero_is_keras_own(jit, labels, batch, model):
    if jit and BACKEND == "torch":
        pytest.skip("compiled in parts: see test_compiled_parts")
    x, y = batch
    weight = np.linspace(0.2, 2.0, len(x)).astype("float32") if labels == "weighted" else None
    loss = CROSS_ENTROPY(from_logits=True)
    if labels == "soft":
        y = (0.8 * np.eye(5)[y] + 0.04).astype("float32")
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    ours, theirs = model, _twin(model)
    trainer = kr.AdversarialModel(ours, _attack(eps=0.0))
    for network in (trainer, theirs):
        network.compile(keras.optimizers.AdamW(1e-2), loss, metrics=["accuracy"], jit_compile=jit)
    logs = [
        n.fit(x, y, batch_size=4, epochs=2, sample_weight=weight, shuffle=False, verbose=0) for n in (trainer, theirs)
    ]
    # Dropout, batch statistics and seeds are among the variables: the attack has touched none of them.
    exact = not jit
    for a, b in zip(_weights(ours), _weights(theirs)):
        np.testing.assert_allclose(a, b, rtol=0 if exact else 2e-4, atol=0 if exact else 2e-5)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(logs[0].history[name], logs[1].history[name], rtol=1e-5)


def test_trains_on_what_the_attack_returns(batch):
    x, y = batch
    network = _plain()
    attack = _attack(eps=0.2)
    x_adv = attack(network, x, y)
    logits = ops.convert_to_numpy(network(ops.convert_to_tensor(x_adv), training=False)).astype("float64")
    expected = -np.log(np.exp(logits[np.arange(8), y]) / np.exp(logits).sum(1)).mean()
    trainer = kr.AdversarialModel(network, attack)
    trainer.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY(from_logits=True), metrics=["accuracy"])
    logs = trainer.fit(x, y, batch_size=8, verbose=0).history
    assert set(logs) == {"loss", "accuracy"}
    np.testing.assert_allclose(logs["loss"], [expected], rtol=1e-4)
    np.testing.assert_allclose(logs["accuracy"], [(logits.argmax(1) == y).mean()], atol=1e-6)


def test_validation_reports_clean_and_robust_accuracy(batch):
    x, y = batch
    network = _plain()
    y = np.argmax(ops.convert_to_numpy(network(ops.convert_to_tensor(x))), -1).astype("int32")
    y[0] = (y[0] + 1) % 5
    strong = kr.attacks.PGD(kr.ThreatModel("L2", 0.7), n_iter=5, returns="misclassified")
    trainer = kr.AdversarialModel(network, _attack(), validation_attack=strong)
    trainer.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY(from_logits=True), metrics=["accuracy"])
    logs = trainer.fit(x, y, batch_size=4, validation_data=(x, y), verbose=0).history
    x_adv = strong(network, x, y)
    robust = np.argmax(ops.convert_to_numpy(network(ops.convert_to_tensor(x_adv))), -1) == y
    robust[0] = False
    np.testing.assert_allclose(logs["val_accuracy"], [7 / 8])
    np.testing.assert_allclose(logs["val_robust_accuracy"], [robust.mean()])
    assert set(logs) == {"loss", "accuracy", "val_loss", "val_accuracy", "val_robust_accuracy"}
    weight = np.array([1, 0, 0, 0, 0, 0, 0, 0], "float32")
    assert trainer.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)["robust_accuracy"] == 0.0


def test_default_validation_attack_is_ten_step_apgd(model):
    attack = kr.AdversarialModel(model, _attack(eps=0.03)).validation_attack
    assert (type(attack), attack.n_iter, attack.returns) == (kr.attacks.APGD, 10, "misclassified")
    assert attack.threat == kr.ThreatModel("Linf", 0.03)


def _accumulated(batch_size, steps, attack_options, batch):
    x, y = (np.concatenate([part] * 4) for part in batch)
    x = (x * np.linspace(0.5, 1, len(x))[:, None, None, None]).astype("float32")
    keras.utils.set_random_seed(3)
    network = _plain()
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 4)
    options = {"gradient_accumulation_steps": steps} if steps > 1 else {}
    optimizer = keras.optimizers.AdamW(schedule, **options)
    trainer = kr.AdversarialModel(network, _attack(**attack_options), eps_warmup_steps=3)
    trainer.compile(optimizer, CROSS_ENTROPY(from_logits=True))
    trainer.fit(x, y, batch_size=batch_size, epochs=1, shuffle=False, verbose=0)
    return network


@pytest.mark.parametrize("random_start", [False, True])
def test_accumulated_micro_batches_equal_one_large_batch(random_start, batch):
    """Weights, schedule, eps warm-up and random starts."""
    attack = {"random_start": random_start}
    large, small = _accumulated(16, 1, attack, batch), _accumulated(4, 4, attack, batch)
    for a, b in zip(large.get_weights(), small.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)
    keras.utils.set_random_seed(3)
    start = _plain().get_weights()
    assert max(np.abs(a - b).max() for a, b in zip(start, large.get_weights())) > 5e-3


def test_eps_warms_up(batch):
    """The loss at frozen weights grows with the radius, which reaches that of the attack."""
    x, y = batch
    network = _plain()
    trainer = kr.AdversarialModel(network, _attack(eps=0.3), eps_warmup_steps=4)
    trainer.compile(keras.optimizers.SGD(0.0), CROSS_ENTROPY(from_logits=True))
    losses = trainer.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0).history["loss"]
    expected = []
    for eps in (0.075, 0.15, 0.225, 0.3, 0.3):
        logits = ops.convert_to_numpy(network(ops.convert_to_tensor(_attack(eps=eps)(network, x, y)))).astype("float64")
        expected.append(-np.log(np.exp(logits[np.arange(8), y]) / np.exp(logits).sum(1)).mean())
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_trains_in_mixed_precision(policy, batch):
    keras.config.set_dtype_policy(policy)
    x, y = batch
    inputs = keras.Input((None, None, 3))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, activation="relu")(inputs))
    network = keras.Model(inputs, keras.layers.Dense(5, dtype="float32")(h))
    trainer = kr.AdversarialModel(network, _attack())
    trainer.compile(keras.optimizers.AdamW(0.05), CROSS_ENTROPY(from_logits=True), metrics=["accuracy"])
    scaled = isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    before = network.get_weights()
    losses = trainer.fit(x, y, batch_size=4, epochs=12, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    assert any(np.abs(a - b).max() > 1e-2 for a, b in zip(before, network.get_weights()))


@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere the step is compiled as a whole")
@pytest.mark.parametrize("objective", [None, kr.training.TRADES()], ids=["cross-entropy", "trades"])
def test_compiled_parts(objective, batch, monkeypatch):
    """The graphs of a step compute what its layers do, batch statistics and what is measured included."""
    import torch

    # What is checked is what is recorded, which PyTorch then compiles for minutes.
    monkeypatch.setattr(torch, "compile", lambda graph, dynamic: graph)
    x, y = batch
    inputs = keras.Input((None, None, 3))
    h = keras.layers.Conv2D(6, 3, strides=2, kernel_initializer="he_normal")(inputs)
    h = keras.layers.Activation("gelu")(keras.layers.BatchNormalization()(h))
    eager = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(h)))
    logs = []
    for network, jit in ((twin := _twin(eager), True), (eager, False)):
        trainer = kr.AdversarialModel(
            network, _attack(random_start=True), eps_warmup_steps=3, objective=objective, diagnostics=True
        )
        loss = CROSS_ENTROPY(from_logits=True)
        trainer.compile(keras.optimizers.AdamW(1e-2), loss, metrics=["accuracy"], jit_compile=jit)
        # The last batch of each epoch is smaller: another graph.
        logs.append(trainer.fit(x, y, batch_size=5, epochs=2, shuffle=False, verbose=0).history)
        assert jit == bool(trainer.compiled_model is not None and trainer.compiled_model.graph.graphs)
    for name, values in logs[1].items():
        np.testing.assert_allclose(logs[0][name], values, rtol=1e-5, atol=1e-6)
    for a, b in zip(_weights(twin), _weights(eager)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert trainer.get_compile_config()["jit_compile"] is False


@pytest.mark.skipif(BACKEND == "torch", reason="refused on PyTorch, see test_refused")
def test_several_steps_per_execution(batch):
    x, y = batch
    results = []
    for steps in (1, 2):
        keras.utils.set_random_seed(1)
        network = _plain()
        trainer = kr.AdversarialModel(network, _attack(), eps_warmup_steps=3)
        trainer.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY(from_logits=True), steps_per_execution=steps)
        trainer.fit(x, y, batch_size=2, shuffle=False, verbose=0)
        results.append(network.get_weights())
        assert int(trainer.counter) == 4
    for a, b in zip(*results):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_saves_and_goes_on(batch, tmp_path):
    x, y = batch
    network = _plain(dropout=True)
    trainer = kr.AdversarialModel(network, _attack(random_start=True), eps_warmup_steps=9)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 20)
    optimizer = keras.optimizers.AdamW(schedule, gradient_accumulation_steps=2)
    trainer.compile(optimizer, CROSS_ENTROPY(from_logits=True), metrics=["accuracy"])
    trainer.fit(x, y, batch_size=2, verbose=0)
    trainer.save(tmp_path / "trainer.keras")
    again = keras.saving.load_model(tmp_path / "trainer.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), trainer.predict(x, verbose=0))
    assert again.attack.get_config() == trainer.attack.get_config()
    assert again.validation_attack.get_config() == trainer.validation_attack.get_config()
    assert int(again.counter) == int(trainer.counter) == 4
    for a, b in zip(trainer.optimizer.variables, again.optimizer.variables):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))
    assert float(again.optimizer.learning_rate) == pytest.approx(float(trainer.optimizer.learning_rate))
    logs = again.fit(x, y, batch_size=2, validation_data=(x, y), verbose=0).history
    assert np.isfinite(logs["val_loss"]).all()
    assert int(again.counter) == 8


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a file as PyTorch writes it, read by another backend")
def test_trains_on_after_a_change_of_backend(batch, tmp_path):
    """Keras on PyTorch saves optimizers as classes of that backend, which no other can train with."""
    trainer = kr.AdversarialModel(_plain(), _attack())
    trainer.compile(keras.optimizers.AdamW(0.01), CROSS_ENTROPY(from_logits=True))
    trainer.fit(*batch, verbose=0)
    trainer.save(tmp_path / "trainer.keras")
    with (
        zipfile.ZipFile(tmp_path / "trainer.keras") as source,
        zipfile.ZipFile(tmp_path / "torch.keras", "w") as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["compile_config"]["optimizer"] |= {
                    "module": "keras.src.backend.torch.optimizers.torch_adamw",
                    "registered_name": "AdamW",
                }
                content = json.dumps(config)
            target.writestr(name, content)
    again = keras.saving.load_model(tmp_path / "torch.keras")
    assert type(again.optimizer) is keras.optimizers.AdamW
    assert np.isfinite(again.fit(*batch, verbose=0).history["loss"]).all()


def test_callbacks_and_predict(batch, tmp_path):
    x, y = batch
    trainer = kr.AdversarialModel(_plain(), _attack())
    trainer.compile(keras.optimizers.AdamW(0.01), CROSS_ENTROPY(from_logits=True), metrics=["accuracy"])
    callbacks = [
        keras.callbacks.ModelCheckpoint(
            tmp_path / "best.weights.h5", monitor="val_robust_accuracy", mode="max", save_weights_only=True
        ),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.EarlyStopping("val_robust_accuracy", mode="max", patience=1),
    ]
    trainer.fit(x, y[:, None], batch_size=4, epochs=3, validation_data=(x, y), callbacks=callbacks, verbose=0)
    assert (tmp_path / "best.weights.h5").exists()
    assert "val_robust_accuracy" in (tmp_path / "log.csv").read_text()
    logits = ops.convert_to_numpy(trainer.model(ops.convert_to_tensor(x), training=False))
    np.testing.assert_allclose(trainer.predict(x, verbose=0), logits, atol=1e-5)


@pytest.mark.parametrize(
    "loss", ["sparse_categorical_crossentropy", "bce", [CROSS_ENTROPY()], keras.losses.categorical_crossentropy]
)
def test_losses_on_probabilities_are_refused(loss, model):
    trainer = kr.AdversarialModel(model, _attack())
    with pytest.raises(ValueError, match="loss must take logits"):
        trainer.compile("adamw", loss)


def test_refused(batch, model, monkeypatch):
    x, y = batch
    with pytest.raises(ValueError, match="attack must be an Attack"):
        kr.AdversarialModel(model, kr.ThreatModel("Linf", 0.1))
    with pytest.raises(ValueError, match=r"model must be a built keras\.Model"):
        kr.AdversarialModel(lambda x: x, _attack())
    net = type("Net", (keras.Model,), {"call": lambda self, images: keras.ops.mean(images, (1, 2))})()
    net(x)
    with pytest.raises(ValueError, match=r"received a Net, whose inputs and outputs .* kr\.adapt\(model, pixels="):
        kr.AdversarialModel(net, _attack())
    with pytest.raises(ValueError, match="model must return logits"):
        kr.AdversarialModel(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3)]), _attack())
    with pytest.raises(ValueError, match="eps_warmup_steps must be an integer >= 0"):
        kr.AdversarialModel(model, _attack(), eps_warmup_steps=-1)
    # A radius for pixels up to 255, in training and in validation.
    far, near = (kr.attacks.FGSM(kr.ThreatModel("L2", eps)) for eps in (128.0, 0.5))
    for trainer, step in (
        (kr.AdversarialModel(model, far, near), "train_on_batch"),
        (kr.AdversarialModel(model, near, far), "test_on_batch"),
    ):
        trainer.compile("sgd", CROSS_ENTROPY(from_logits=True))
        with pytest.raises(ValueError, match=r"eps must be below .* under L2 for images of shape .* received 128"):
            getattr(trainer, step)(x, y)
    trainer = kr.AdversarialModel(model, _attack())
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="steps_per_execution must be 1 on the PyTorch backend"):
            trainer.compile("adamw", CROSS_ENTROPY(from_logits=True), steps_per_execution=2)
        trainer.compile("adamw", CROSS_ENTROPY(from_logits=True), jit_compile=True)
        monkeypatch.setattr("torch.compile", lambda graph, dynamic: graph)
        with pytest.raises(ValueError, match="jit_compile must be False for this model and attack"):
            trainer.train_on_batch(x, y)  # its dropout draws random numbers
    with pytest.raises(ValueError, match=r"without use_ema=True.*give AdversarialModel ema_decay"):
        trainer.compile(keras.optimizers.SGD(0.1, use_ema=True), CROSS_ENTROPY(from_logits=True))
    trainer.compile("adamw", CROSS_ENTROPY(from_logits=True))
    before = model.get_weights()
    for bad_x, bad_y, message in (
        (x * 255, y, r"pixels in \[0, 1\]"),
        (x * np.nan, y, "finite"),
        ((x * 255).astype("uint8"), y, "Divide 8-bit images by 255"),
        (x, y + 1, r"class indices in \[0, 4\]"),
        (x, y[:4], "one label per image"),
        (list(x), y, "received list"),
        (x, None, "y must be given"),
    ):
        for run in (trainer.fit, trainer.evaluate):
            with pytest.raises(ValueError, match=message):
                run(bad_x, bad_y, verbose=0)
    with pytest.raises(ValueError, match="sample_weight must be finite"):
        trainer.fit(x, y, sample_weight=np.where(y, 1.0, np.nan), verbose=0)
    for a, b in zip(before, model.get_weights()):
        np.testing.assert_array_equal(a, b)


class _Stream(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.x[index * 4 : index * 4 + 4], self.y[index * 4 : index * 4 + 4]


def test_bad_streams_are_refused(batch):
    x, y = batch
    late = x * np.array([1, 1, 1, 1, 255, 1, 1, 1], "float32")[:, None, None, None]  # not in the first batch
    for bad_x, bad_y, message in (
        (x * 255, y, r"pixels in \[0, 1\]"),
        (late, y, r"pixels in \[0, 1\]; 1 images"),
        (x, y + 1, r"class indices in \[0, 4\]"),
        (x, y.astype("float32"), "y must be integer class indices"),
    ):
        trainer = kr.AdversarialModel(_plain(), _attack())
        trainer.compile("adamw", CROSS_ENTROPY(from_logits=True))
        with pytest.raises(ValueError, match=message):
            trainer.fit(_Stream(bad_x, bad_y), validation_data=(x, y), verbose=0)


def test_single_batches_are_checked(batch):
    x, y = batch
    trainer = kr.AdversarialModel(_plain(), _attack())
    trainer.compile("adamw", CROSS_ENTROPY(from_logits=True))
    assert np.isfinite(trainer.train_on_batch(x, y))
    for step in (trainer.train_on_batch, trainer.test_on_batch):
        with pytest.raises(ValueError, match=r"pixels in \[0, 1\]"):
            step(x * 255, y)
        with pytest.raises(ValueError, match="labels; received None"):
            step(x)
