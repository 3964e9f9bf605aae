"""What holds for every attack: a row in `ATTACKS` is all that a new one needs."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import keras_robust as kr
from keras_robust import losses
from keras_robust.attacks import APGD, FAB, FGSM, PGD, Square

EPS = {"Linf": 8 / 255, "L2": 0.4, "L1": 3.0}
# Up to four iterations are unrolled, each of which is compiled: two show that, from five on it is a loop.
ATTACKS = {
    "apgd": lambda threat: APGD(threat, n_iter=2),
    "apgd-random": lambda threat: APGD(threat, n_iter=2, random_start=True, n_restarts=2),
    "apgd-dlr": lambda threat: APGD(threat, n_iter=6, loss="dlr"),
    "pgd": lambda threat: PGD(threat, n_iter=2),
    "pgd-random": lambda threat: PGD(threat, n_iter=6, random_start=True),
    "fgsm": lambda threat: FGSM(threat),
    "fgsm-random": lambda threat: FGSM(threat, random_start=True),
    "apgd-t": lambda threat: APGD(threat, n_iter=6, loss="targeted-dlr", n_target_classes=2),
    "fab": lambda threat: FAB(threat, n_iter=5),
    "fab-t": lambda threat: FAB(threat, n_iter=5, targeted=True, n_target_classes=2),
    "square": lambda threat: Square(threat, n_queries=30),
}
# Those that look for any misclassified point, whatever its loss.
DECIDING = ("fab", "fab-t", "square")
every_attack = pytest.mark.parametrize("name", ATTACKS)
every_norm = pytest.mark.parametrize("norm", EPS)


def _loss(loss, model, x, y):
    logits = model(ops.convert_to_tensor(x), training=False)
    return ops.convert_to_numpy(loss(logits, ops.convert_to_tensor(y)))


def _state(model):
    return [np.array(ops.convert_to_numpy(v.value)) for v in model.variables], [v.trainable for v in model.variables]


@every_norm
@every_attack
def test_stays_in_the_threat_model_never_lowers_the_loss_and_leaves_the_model_as_it_was(name, norm, batch, model):
    x, y = batch
    values, trainable = _state(model)
    assert len(values) > len(model.trainable_variables) + 2  # batch statistics and seed states are among them
    threat = kr.ThreatModel(norm, EPS[norm])
    attack = ATTACKS[name](threat)
    x_adv = attack(model, x, y)
    for now, before in zip(_state(model)[0], values, strict=True):
        np.testing.assert_array_equal(now, before)
    assert _state(model)[1] == trainable
    if keras.backend.backend() == "torch":
        assert all(v.value.grad is None for v in model.trainable_variables)
    assert isinstance(x_adv, np.ndarray)
    assert x_adv.dtype == np.float32
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    order = {"Linf": np.inf, "L2": 2, "L1": 1}[norm]
    size = np.linalg.norm((x_adv.astype("float64") - x).reshape(len(x), -1), order, axis=1)
    assert (size <= EPS[norm] * (1 + 1e-6) + 1e-7).all()
    if name in DECIDING:
        before, after = _loss(losses.margin, model, x, y), _loss(losses.margin, model, x_adv, y)
        assert (after[before > 0] > 0).all()
        assert ((after > 0) | (after >= before - 1e-5)).all()
        return
    # Aiming at one class or another raises the margin of the best of all in the end, not for every image.
    loss = losses.margin if attack.targeted else attack.loss_function
    before, after = _loss(loss, model, x, y), _loss(loss, model, x_adv, y)
    assert (after >= before - 1e-5).all() or attack.targeted
    assert after.mean() > before.mean() + 1e-3


@pytest.mark.filterwarnings("ignore:Zero gradients")  # true of some of these images
@every_norm
@settings(max_examples=3 if keras.backend.backend() == "jax" else 8)
@given(data=st.data())
def test_properties_hold_for_any_images(norm, data):
    scale = data.draw(st.sampled_from([0.0, 0.01, 1.0, 3.0]))
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    x = (0.5 + scale * (rng.uniform(size=(4, 4, 4, 3)) - 0.5)).clip(0, 1).astype("float32")
    y = rng.integers(0, 5, 4).astype("int32")
    kernel = ops.convert_to_tensor(
        (rng.normal(size=(48, 5)) * data.draw(st.sampled_from([0.0, 1e-3, 1.0, 100.0]))).astype("float32")
    )
    model = lambda images: ops.matmul(ops.reshape(images, (-1, 48)), kernel)  # noqa: E731
    threat = kr.ThreatModel(
        norm, data.draw(st.sampled_from([0.0, 1e-4, 0.03, 1.0, {"Linf": 1.0, "L2": 6.0, "L1": 40.0}[norm]]))
    )
    for attack in (APGD(threat, n_iter=4), PGD(threat, n_iter=2, random_start=True)):
        x_adv = attack(model, x, y)
        assert threat.contains(x_adv, x).all()
        before, after = (
            ops.convert_to_numpy(losses.cross_entropy(model(ops.convert_to_tensor(z)), ops.convert_to_tensor(y)))
            for z in (x, x_adv)
        )
        assert (after >= before * (1 - 1e-5) - 1e-5).all()


# The compiled attack is kept by the base class: one attack with gradients and one without.
@pytest.mark.parametrize("name", ["apgd", "square"])
def test_follows_new_weights(name, batch, model):
    x, y = batch
    attack = ATTACKS[name](kr.ThreatModel("L2", 1.0))
    first = attack(model, x, y)
    model.set_weights([-w if w.dtype == "float32" and w.ndim > 1 else w for w in model.get_weights()])
    second = attack(model, x, y)
    assert not np.allclose(first, second)
    np.testing.assert_allclose(second, ATTACKS[name](kr.ThreatModel("L2", 1.0))(model, x, y), atol=1e-6)


def test_tensors_in_tensors_out(batch, model):
    x, y = batch
    attack = APGD(kr.ThreatModel("Linf", 0.02), n_iter=2)
    x_adv = attack(model, ops.convert_to_tensor(x), ops.convert_to_tensor(y))
    assert ops.is_tensor(x_adv)
    np.testing.assert_allclose(ops.convert_to_numpy(x_adv), attack(model, x, y), atol=1e-6)


# One of each way to use labels: a loss, pairs of classes, the class alone.
@pytest.mark.parametrize(
    "name",
    ["apgd", *(pytest.param(name, marks=pytest.mark.once) for name in ("apgd-dlr", "pgd", "apgd-t", "fab", "square"))],
)
def test_hard_and_one_hot_labels_agree(name, batch, model):
    x, y = batch
    attack = ATTACKS[name](kr.ThreatModel("L2", 0.5))
    np.testing.assert_allclose(attack(model, x, y), attack(model, x, np.eye(5, dtype="float32")[y]), atol=1e-4)


def test_any_callable_and_any_number_of_channels():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(5, 7, 6, 1)).astype("float32")
    kernel = ops.convert_to_tensor(rng.normal(size=(42, 4)).astype("float32"))
    model = lambda images: ops.matmul(ops.reshape(images, (-1, 42)), kernel)  # noqa: E731
    y = np.argmax(ops.convert_to_numpy(model(ops.convert_to_tensor(x))), -1)
    x_adv = FGSM(kr.ThreatModel("Linf", 0.3))(model, x, y)
    assert x_adv.shape == x.shape
    # One signed step on a linear model is the worst case of its margin: compare with the closed form.
    weights = ops.convert_to_numpy(kernel)
    probabilities = np.exp(x.reshape(5, -1) @ weights)
    probabilities /= probabilities.sum(1, keepdims=True)
    gradient = (probabilities - np.eye(4)[y]) @ weights.T
    np.testing.assert_allclose(x_adv.reshape(5, -1), (x.reshape(5, -1) + 0.3 * np.sign(gradient)).clip(0, 1), atol=1e-6)


def test_random_starts_do_not_depend_on_the_batch(batch, model):
    x, y = batch
    attack = PGD(kr.ThreatModel("Linf", 0.05), n_iter=1, random_start=True, returns="last")
    whole = attack(model, x, y)
    np.testing.assert_allclose(whole[:3], attack(model, x[:3], y[:3]), atol=1e-6)
    other = PGD(kr.ThreatModel("Linf", 0.05), n_iter=1, random_start=True, returns="last", seed=1)(model, x, y)
    assert np.abs(whole - other).max() > 1e-3


def test_fgsm_last_is_one_step_from_the_image(batch, model):
    x, y = batch
    x_adv = FGSM(kr.ThreatModel("Linf", 0.02), returns="last")(model, x, y)
    moved = np.abs(x_adv - x)
    inside = (x > 0.02) & (x < 0.98)
    inside[:, 5:] = inside[:, :, 5:] = False  # the strided convolution does not see the last row and column
    assert np.isclose(moved[inside], 0.02, atol=1e-6).mean() > 0.95


def test_misclassified_points_are_preferred(batch, model):
    x, _ = batch
    y = np.argmax(ops.convert_to_numpy(model(ops.convert_to_tensor(x), training=False)), -1)
    threat = kr.ThreatModel("L2", 1.0)
    accuracy = {}
    for returns in ("highest_loss", "misclassified"):
        x_adv = APGD(threat, n_iter=8, returns=returns)(model, x, y)
        logits = model(ops.convert_to_tensor(x_adv), training=False)
        accuracy[returns] = ops.convert_to_numpy(losses.correct(logits, ops.convert_to_tensor(y))).mean()
    assert accuracy["misclassified"] <= accuracy["highest_loss"] < 1


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_attacks_16_bit_models(policy, batch):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((None, None, 3))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))
    # Gradients below the smallest float16 number: without a scaled loss the attack would see zeros.
    outputs = keras.layers.Dense(5, dtype="float32")(keras.layers.Rescaling(1e-4)(h))
    net = keras.Model(inputs, outputs)
    x, y = batch
    x_adv = FGSM(kr.ThreatModel("Linf", 0.05), returns="last")(net, x, y)
    assert (np.abs(x_adv - x) > 0.01).mean() > 0.4


def test_configuration_round_trip():
    for attack in (
        APGD(
            kr.ThreatModel("L1", 3.0),
            n_iter=7,
            loss="dlr",
            random_start=True,
            n_restarts=2,
            seed=5,
            returns="misclassified",
        ),
        PGD(kr.ThreatModel("Linf", 0.1), n_iter=3, step_size=0.02),
        FGSM(kr.ThreatModel("L2", 0.1), random_start=True, returns="last"),
    ):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(attack))
        assert type(again) is type(attack)
        assert again.get_config() == attack.get_config()
        assert repr(again) == repr(attack)


X = np.full((2, 4, 4, 3), 0.5, "float32")
Y = np.array([0, 1])
BAD_BATCHES = {
    "integers": (X.astype("uint8"), Y, "x must be floats in \\[0, 1\\]; received dtype uint8. Divide"),
    "out of the box": (X * 255, Y, "x must be pixels in \\[0, 1\\]; received values in \\[127.5, 127.5\\]"),
    "negative": (X - 1, Y, "x must be pixels in"),
    "NaN": (X * np.nan, Y, "x must be finite"),
    "rank": (X[0], Y, "received shape \\(4, 4, 3\\)"),
    "no array": ("cat.png", Y, "received str"),
    "empty": (X[:0], Y[:0], "x must not be empty"),
    "other batch size": (X, np.array([0, 1, 2]), "one label per image; received shape \\(3,\\) for 2 images"),
    "label too large": (X, np.array([0, 5]), "class indices in \\[0, 4\\].*received values in \\[0, 5\\]"),
    "negative label": (X, np.array([-1, 0]), "class indices in"),
    "float labels": (X, np.array([0.0, 1.0]), "y must be integer class indices"),
    "soft labels of other width": (X, np.full((2, 4), 0.25), "soft labels of shape \\(2, 5\\)"),
    "soft labels that do not sum to 1": (X, np.full((2, 5), 0.5), r"sum to 1 .*; received \[0.5 0.5"),
    "ragged labels": (X, [[0], [1, 2]], "y must be an array of labels"),
    "no labels": (X, None, "one label per image"),
    "one NaN": (np.where(np.arange(96).reshape(X.shape) == 50, np.nan, X), Y, "x must be finite"),
    "objects": (X.astype(object), Y, "x must be floats .* received dtype object"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_bad_batches_are_refused(case, model):
    x, y, message = BAD_BATCHES[case]
    with pytest.raises(ValueError, match=message):
        APGD(kr.ThreatModel("Linf", 0.1))(model, x, y)


def test_models_that_cannot_be_attacked_are_refused():
    attack = FGSM(kr.ThreatModel("Linf", 0.1))
    with pytest.raises(ValueError, match="model must be a callable"):
        attack("model.keras", X, Y)
    with pytest.raises(ValueError, match="logits of shape"):
        attack(lambda x: x, X, Y)
    with pytest.raises(ValueError, match="finite logits and gradients; those of 2 of 2"):
        attack(lambda x: ops.sum(x, (1, 2))[:, :3] * np.float32("nan"), X, Y)
    with pytest.raises(ValueError, match="at least 3 classes"):
        APGD(kr.ThreatModel("Linf", 0.1), loss="dlr")(lambda x: ops.sum(x, (1, 2))[:, :2], X, Y)
    with pytest.raises(ValueError, match="at least 2 classes"):
        attack(lambda x: ops.sum(x, (1, 2))[:, :1], X, Y * 0)
    with pytest.raises(ValueError, match="one value per image"):
        FGSM(kr.ThreatModel("Linf", 0.1), loss=lambda z, y: ops.mean(z))(lambda x: ops.sum(x, (1, 2)), X, Y)
    with pytest.raises(ValueError, match="take the reverse"):
        FGSM(kr.ThreatModel("Linf", 0.1), loss=keras.losses.CategoricalCrossentropy(from_logits=True))


@pytest.mark.parametrize("attack", [APGD, PGD])
def test_gradients_that_are_not_finite_do_not_pass_for_robustness(attack):
    def model(images):
        logits = ops.sum(images, (1, 2))
        steep = ops.sqrt(ops.sum((images - 0.5) ** 2, (1, 2, 3)))
        return ops.stack([logits[:, 0] + steep, logits[:, 1], logits[:, 2]], axis=1)

    with pytest.raises(ValueError, match="finite logits and gradients"):
        attack(kr.ThreatModel("Linf", 0.1), n_iter=2)(model, X, Y)


def test_models_that_ignore_their_images_are_left_alone():
    attack = PGD(kr.ThreatModel("Linf", 0.1))
    with pytest.warns(UserWarning, match="Zero gradients"):
        x_adv = attack(lambda x: ops.convert_to_tensor(2 * np.eye(2, 3, dtype="float32")), X, Y)
    np.testing.assert_array_equal(x_adv, X)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_iter": 0}, "n_iter must be an integer >= 1; received 0"),
        ({"n_iter": 2.5}, "n_iter must be an integer"),
        ({"loss": "mse"}, "loss must be one of 'ce', 'dlr'"),
        ({"returns": "best"}, "returns must be one of 'highest_loss', 'misclassified'; received 'best'"),
        ({"random_start": "no"}, "random_start must be True or False; received 'no'"),
        ({"n_restarts": 3}, "needs random_start=True"),
        ({"seed": -1}, "seed must be an integer >= 0"),
        ({"seed": 2**31}, "seed must be below 2\\*\\*31"),
        ({"loss": ["ce"]}, "loss must be one of"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        APGD(kr.ThreatModel("Linf", 0.1), **options)


def test_bad_threats_are_refused():
    with pytest.raises(ValueError, match="threat must be a ThreatModel"):
        APGD(0.1)
    with pytest.raises(ValueError, match="step_size must be a finite number >= 0"):
        PGD(kr.ThreatModel("Linf", 0.1), step_size=-1)
