"""Every recipe: what it says of itself, and one of each kind run small, from the command line to the models."""

import json

import keras
import pytest

import keras_robust as kr
from keras_robust.recipes import Recipe, cli, cost
from tests import scripts
from tests.recipes import tiny

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="nothing in it depends on the backend")
FOLDER = scripts.ROOT / "recipes"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "command_line import main" in path.read_text())


def _load(name):
    return scripts.load(f"recipes/{name}.py")


def _recipes(module):
    return list(module.RUNGS.values()) if hasattr(module, "RUNGS") else [module.RECIPE]


@pytest.mark.parametrize("name", SCRIPTS)
def test_says_what_it_is(name):
    module = _load(name)
    assert f"python recipes/{name}.py" in module.__doc__
    assert "Expected" in module.__doc__
    assert "Cost" in module.__doc__
    for recipe in _recipes(module):
        assert isinstance(recipe, Recipe)
        assert kr.recipes.Recipe.from_json(recipe.to_json()) == recipe


def test_published_rows_are_all_there():
    """With epochs, steps, normalisation and the accuracies of the table of published checkpoints."""
    found = {}
    for name in SCRIPTS:
        module = _load(name)
        for recipe in [] if hasattr(module, "RUNGS") else _recipes(module):
            key = (recipe.model.name, recipe.training.epochs, recipe.attack.n_iter)
            found[key] = (recipe, module.__doc__)
    for title, preset in kr.models.presets().items():
        if title == "vit_base_50ep":  # the same recipe, stopped earlier
            continue
        recipe, text = found[preset.architecture, preset.epochs, preset.attack_steps]
        assert recipe.model.normalization == preset.normalization
        assert (recipe.attack.norms, recipe.attack.eps) == (("Linf",), (4 / 255,))
        for figure in (preset.clean, preset.linf, preset.l2, preset.l1):
            assert figure is None or f" {figure}" in text


def test_cost_by_hand():
    """ConvNeXt-T + ConvStem: 300 epochs x 1,281,167 images x 8 passes x 2 x 4.6 G multiply-adds (published)."""
    recipe = _load("convnext_tiny_convstem").RECIPE
    assert cost.passes(recipe) == 8  # 3 + 2 of the attack and 1 + 2 of the update
    assert cost.operations(recipe) == pytest.approx(300 * 1_281_167 * 8 * 2 * 4.6e9, rel=0.02)
    assert "2.8e+19 operations" in _load("convnext_tiny_convstem").__doc__
    for setting, passes in (("attack.kind=none", 3), ("attack.n_iter=3", 10), ("attack.kind=n-fgsm", 5)):
        assert cost.passes(kr.recipes.overrides.override(recipe, [setting])) == passes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant", "key"),
    [
        ("vit_small_convstem", [], "val_robust_accuracy"),
        ("ablation", ["vit_small_random"], "val_robust_accuracy"),
        ("clean_pretraining", [], "val_accuracy"),
        ("finetune_8_255", [], "val_robust_accuracy"),
        ("extreme_norms", [], "val_robust_accuracy"),
    ],
)
def test_one_of_each_kind(name, variant, key, tmp_path, monkeypatch):
    tiny.register()
    for family in cli.SMALL:
        monkeypatch.setitem(cli.SMALL, family, tiny.NAME.removesuffix("_convstem"))
    kr.models.registry.ARCHITECTURES.setdefault("vit_test", kr.models.architecture(tiny.NAME))
    module = _load(name)
    recipes = getattr(module, "RUNGS", None) or module.RECIPE
    cli.main(recipes, module.__doc__, [*variant, "--smoke", "--out", str(tmp_path / "run")])
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [epoch["step"] for epoch in history] == [4, 8]
    assert key in history[-1]
    assert (tmp_path / "run" / "best.keras").exists()


def test_bad_settings_end_with_code_2(capsys, tmp_path):
    module = _load("vit_small")
    for arguments, message in (
        (["--set", "training.epoch=1"], "did you mean 'epochs'"),
        (["--data", "/nowhere", "--out", str(tmp_path / "never")], "nowhere"),
        (["--smoke", "--start", "/nowhere.pth", "--out", str(tmp_path / "never")], "no file"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(module.RECIPE, module.__doc__, arguments)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
