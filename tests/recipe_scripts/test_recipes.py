"""Recipes: the published systems, the scripts, and one of each kind run small, from command line to models."""

import json
import re

import pytest

import keras_robust as kr
from keras_robust.cli import train
from keras_robust.cli.train import SYSTEMS
from keras_robust.recipes import Recipe, cost, imagenet, overrides
from tests import scripts
from tests.recipes import tiny

pytestmark = pytest.mark.once
SCRIPTS = ("ablation", "clean_pretraining", "finetune", "multi_norm")


def _load(name):
    return scripts.load(f"recipes/{name}.py")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_say_what_they_are(name):
    module = _load(name)
    assert f"python recipes/{name}.py" in module.__doc__
    assert "Expected" in module.__doc__
    assert "Cost" in module.__doc__
    for recipe in map(module.recipe, module.RUNGS) if hasattr(module, "RUNGS") else [module.recipe()]:
        assert isinstance(recipe, Recipe)
        assert Recipe.from_json(recipe.to_json()) == recipe


def test_clean_runs_normalise_as_the_robust_ones_that_start_from_them():
    """Of another normalisation the weights of a clean run are refused, after days."""
    module = _load("clean_pretraining")
    for arguments in re.findall(r"python recipes/clean_pretraining\.py ((?:[^\\\n]|\\\n)*)", module.__doc__):
        settings = ["start.weights=clean.pth", *re.findall(r"--set (\S+)", arguments)]
        clean = overrides.override(module.recipe(), settings)
        assert clean.model.normalization == imagenet.recipe(clean.model.name).model.normalization, arguments
    ladder = _load("ablation")
    for name, (model, rung) in ladder.RUNGS.items():
        published = imagenet.recipe(model + ladder.LADDER[rung][0]).model
        assert ladder.recipe(name).model == published


def test_published_systems_are_all_there():
    """With epochs, steps and normalisation of the table of published checkpoints, and what it leaves to the recipe."""
    found = {preset: imagenet.recipe(name) for name, preset in SYSTEMS.items()}
    known = {name for name, row in kr.models.presets().items() if row.epochs and row.attack_steps}
    # The same recipe, stopped earlier; and an architecture that came later.
    assert known - set(found) == {"vit_base_50ep", "xcit_medium_debenedetti2022"}
    for title, recipe in found.items():
        preset = kr.models.preset(title)
        assert (recipe.model.name, recipe.training.epochs) == (preset.architecture, preset.epochs)
        assert (recipe.attack.kind, recipe.attack.n_iter) == ("apgd", preset.attack_steps)
        assert recipe.model.normalization == preset.normalization
        assert (recipe.attack.norms, recipe.attack.eps) == (("Linf",), (4 / 255,))
        assert recipe.attack.eps_warmup_epochs == (10 if preset.attack_steps == 1 else 0)
        # 80 images on each of 8 devices, AdamW at 1e-3, averages with decay 0.9999 (Singh et al. 2023).
        assert (recipe.data.policy, recipe.data.resolution, recipe.data.batch_size) == ("heavy", 224, 640)
        assert (recipe.training.learning_rate, recipe.training.ema_decay) == (1e-3, 0.9999)


def test_cost_by_hand():
    """ConvNeXt-T + ConvStem: 300 epochs x 1,281,167 images x 8 passes x 2 x 4.6 G multiply-adds (published)."""
    recipe = imagenet.recipe("convnext_tiny_convstem")
    assert cost.passes(recipe) == 8  # 3 + 2 of the attack and 1 + 2 of the update
    operations, parameters = cost.count(recipe)
    assert operations == pytest.approx(300 * 1_281_167 * 8 * 2 * 4.6e9, rel=0.02)
    assert parameters == pytest.approx(28.6e6, rel=0.01)
    for setting, passes in (("attack.kind=none", 3), ("attack.n_iter=3", 10), ("attack.kind=n-fgsm", 5)):
        assert cost.passes(overrides.override(recipe, [setting])) == passes


def test_list_shows_the_table(capsys, monkeypatch):
    monkeypatch.setattr(imagenet, "SYSTEMS", {"convnext_tiny_convstem": "convnext_tiny_convstem_300ep"})
    assert train.main(["--list"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("convnext_tiny_convstem")]
    assert row.split()[:8] == ["convnext_tiny_convstem", "28.6", "300", "2", "72.7", "49.5", "48.4", "24.5"]
    assert row.endswith("9 h 47 min")  # 2.8e19 operations on 8e14 a second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variant", "key"),
    [
        ("imagenet", ["vit_small_convstem"], "val_robust_accuracy"),
        ("ablation", ["vit_small_random"], "val_robust_accuracy"),
        ("clean_pretraining", [], "val_accuracy"),
        ("finetune", [], "val_robust_accuracy"),
        ("multi_norm", [], "val_robust_accuracy"),
    ],
)
def test_one_of_each_kind(name, variant, key, tmp_path, monkeypatch):
    tiny.register()
    kr.models.register(f"{tiny.NAME}_convstem", kr.models.architecture(tiny.NAME))
    for family in train.SMALL:
        monkeypatch.setitem(train.SMALL, family, tiny.NAME)
    module, arguments = _load(name), [*variant, "--smoke", "--out", str(tmp_path / "run")]
    if name == "imagenet":
        assert module.main(arguments) == 0
    elif name == "ablation":
        assert train.run_recipes(module.RUNGS, module.recipe, "train", module.__doc__, arguments=arguments) == 0
    else:
        assert train.run_recipe(module.recipe, module.__doc__, arguments) == 0
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [epoch["step"] for epoch in history] == [4, 8]
    assert key in history[-1]
    assert (tmp_path / "run" / "best.keras").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vit_small", "--set", "training.epoch=1"], "Did you mean 'epochs'"),
        (["vit_small", "--data", "/nowhere", "--out", "OUT"], "--data must be"),
        (["vit_small", "--smoke", "--start", "/nowhere.pth", "--out", "OUT"], "no file"),
        (["vit_smal"], "NAME must be one of .*received 'vit_smal'. Did you mean 'vit_small'"),
        (
            ["vit_small", "--distribution", "mirored", "--smoke"],
            "--distribution must be one of .*Did you mean 'mirrored'",
        ),
    ],
)
def test_bad_settings_end_with_code_2(arguments, message, capsys, tmp_path):
    arguments = [str(tmp_path / "never") if argument == "OUT" else argument for argument in arguments]
    assert train.main(arguments) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert error.splitlines()[-1].startswith("keras-robust train: ")
    assert len([line for line in error.splitlines() if not line.startswith("warning: ")]) == 1


def test_without_a_name(capsys):
    with pytest.raises(SystemExit) as caught:
        train.main([])
    assert caught.value.code == 2
    assert "NAME must be one of" in capsys.readouterr().err
