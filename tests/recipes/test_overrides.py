"""Recipes: checked, overridden from the command line, written and read back."""

import pytest

from keras_robust.recipes import AttackConfig, DataConfig, ModelConfig, Recipe, StartConfig, TrainingConfig, overrides

pytestmark = pytest.mark.once


def test_overrides():
    recipe = overrides.override(
        Recipe("x"),
        [
            "training.epochs=50",
            "training.ema_decay=none",
            "attack.norms=Linf,L1",
            "attack.eps=8/255, 12",
            "data.schedule=0:128,30:224",
            "data.skip_corrupt=true",
            "model.normalization=0.5:0.5:0.5,1:1:1",
            "start.weights=runs/a=b",
        ],
    )
    assert recipe.training == TrainingConfig(epochs=50, ema_decay=None)
    assert recipe.attack == AttackConfig(norms=("Linf", "L1"), eps=(8 / 255, 12.0))
    assert recipe.data.schedule == ((0, 128), (30, 224))
    assert [recipe.data.resolution_at(epoch) for epoch in (0, 29, 30, 99)] == [128, 128, 224, 224]
    assert recipe.data.skip_corrupt is True
    assert recipe.model.normalization == ((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    assert recipe.start.weights == "runs/a=b"
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        (
            "training.epoch=3",
            "a setting of training must be one of .*received 'training.epoch=3'. Did you mean 'epochs'",
        ),
        ("train.epochs=3", "a setting must begin with one of .*received 'train.epochs=3'. Did you mean 'training'"),
        ("training.epochs=many", "training.epochs must be an integer; received 'many'"),
        ("attack.eps=1/0", "attack.eps must be a number"),
        ("training.epochs", "must be written part.name=value"),
        ("name=y", "must be written part.name=value"),
        ("training.epochs=0", "training.epochs must be an integer >= 1; received 0"),
        ("attack.norms=L3", "attack.norms must be one of"),
        ("attack.norms=Linf,L1", "attack.eps must be one per norm"),
        ("data.skip_corrupt=maybe", "data.skip_corrupt must be true or false"),
        ("data.engine=dali", "data.engine must be one of 'grain', 'tf.data'; received 'dali'"),
        ("training.objective=trades", "must start at a random point"),
        ("model.name=convnext_tny", "model.name must be one of .*Did you mean 'convnext_tiny'"),
        ("start.train_only=stem", "start.train_only needs start.weights"),
        ("training.precision=float8", "training.precision must be one of"),
    ],
)
def test_refused(assignment, message):
    with pytest.raises(ValueError, match=message):
        overrides.override(Recipe("x"), [assignment])


@pytest.mark.parametrize("text", ["[]", "{", '{"name": "x", "more": 1}', '{"name": "x", "data": {"batch": 1}}', "{}"])
def test_foreign_json(text):
    with pytest.raises(ValueError, match=r"recipe|data"):
        Recipe.from_json(text)


def test_same_run_or_another():
    """Data may move, and validation or checkpoints change; what decides the weights may not."""
    recipe = Recipe("x", model=ModelConfig("vit_tiny"))
    for same in ("data.source=elsewhere", "evaluation.n_iter=20", "checkpoints.keep_last=9", "guard.action=rollback"):
        assert overrides.override(recipe, [same]).fingerprint() == recipe.fingerprint()
    for other in (
        "data.batch_size=64",
        "data.validation=elsewhere",
        "training.seed=1",
        "attack.n_iter=3",
        "start.weights=a",
        "model.name=vit_small",
    ):
        assert overrides.override(recipe, [other]).fingerprint() != recipe.fingerprint()


def test_warns_of_random_weights_with_heavy_augmentation():
    assert "random weights with heavy augmentation" in Recipe("x").warns[0]
    assert not Recipe("x", data=DataConfig(policy="basic")).warns
    assert not Recipe("x", start=StartConfig("runs/clean")).warns
    assert not Recipe("x", attack=AttackConfig("none")).warns
