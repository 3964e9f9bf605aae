"""Which files load into which models, and what is refused."""

import re
import warnings

import keras
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.resnet import ResNet

from . import tensors
from .small import IMAGENET, SMALL, assert_same, create, values, write

pytestmark = [pytest.mark.usefixtures("small_models"), pytest.mark.once]


@pytest.mark.parametrize("name", SMALL)
def test_what_is_saved_is_loaded(name, tmp_path):
    model, other = create(name, normalization=IMAGENET), create(name, normalization=IMAGENET)
    kr.weights.save(model, tmp_path / "w.safetensors")
    kr.weights.load(other, tmp_path / "w.safetensors")
    assert_same(values(other), values(model))


@pytest.mark.parametrize("name", ["convnext_convstem", "vit"])
@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_keras_files(name, suffix, tmp_path):
    model, other = create(name, drop_path_rate=0.1), create(name, drop_path_rate=0.1)
    path = tmp_path / f"w{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    kr.weights.load(other, path)
    assert_same(values(other), values(model))
    wider = create(name, num_classes=4)
    before = values(wider)
    with pytest.raises(ValueError, match="does not fit"):
        kr.weights.load(wider, path)
    assert_same(values(wider), before)


def test_keras_file_with_another_head_and_grid(tmp_path):
    model = create("vit")
    model.save(tmp_path / "w.keras")
    other = create("vit", num_classes=5, input_size=48)
    kr.weights.load(other, tmp_path / "w.keras", head="skip")
    x = np.random.RandomState(0).uniform(size=(1, 48, 48, 3)).astype("float32")
    features = [keras.Model(m.input, m.get_layer("norm").output).predict_on_batch(x) for m in (model, other)]
    np.testing.assert_allclose(*features, atol=1e-4)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".tar"])
def test_file_types(suffix, tmp_path):
    state_dict = tensors.isotropic()
    model = create("isotropic")
    kr.weights.load(model, write(tmp_path / f"w{suffix}", state_dict))
    np.testing.assert_array_equal(values(model)["head/kernel"], state_dict["head.weight"].T)
    kernel = state_dict["blocks.1.dwconv.weight"].transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(values(model)["blocks_1/conv_dw/kernel"], kernel)


@pytest.mark.parametrize("prefix", ["module.", "base_model.", "model.", "base_model.module.model."])
@pytest.mark.parametrize("entry", [None, "model", "state_dict", "model_ema"])
def test_wrappers(prefix, entry, tmp_path):
    state_dict = {prefix + name: torch.tensor(tensor) for name, tensor in tensors.isotropic().items()}
    state_dict[prefix + "num_batches_tracked"] = torch.tensor(3)
    content = state_dict if entry is None else {entry: state_dict, "epoch": 3, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "w.pt")
    model = create("isotropic")
    kr.weights.load(model, tmp_path / "w.pt")
    np.testing.assert_array_equal(values(model)["norm/gamma"], tensors.isotropic()["norm.weight"])


def test_several_state_dicts_need_a_choice(tmp_path):
    plain = {name: torch.tensor(tensor) for name, tensor in tensors.isotropic().items()}
    ema = {name: 2 * tensor for name, tensor in plain.items()}
    torch.save({"model": plain, "model_ema": ema}, tmp_path / "w.pt")
    model = create("isotropic")
    with pytest.raises(ValueError, match=r"choose one by entry=, accepted are \['model', 'model_ema'\]"):
        kr.weights.load(model, tmp_path / "w.pt")
    kr.weights.load(model, tmp_path / "w.pt", entry="model_ema")
    np.testing.assert_array_equal(values(model)["norm/gamma"], 2 * tensors.isotropic()["norm.weight"])
    with pytest.raises(ValueError, match="entry must be one of"):
        kr.weights.load(model, tmp_path / "w.pt", entry="ema")


@pytest.mark.parametrize(
    "spelling", ["normalize.{}", "module.normalize.{}", "normalization.{}", "module.normalizer.new_{}"]
)
def test_embedded_normalization(spelling, tmp_path):
    state_dict = tensors.isotropic()
    for name, numbers in zip(("mean", "std"), IMAGENET):
        state_dict[spelling.format(name)] = np.array(numbers, "float32").reshape(1, 3, 1, 1)
    path = write(tmp_path / "w.safetensors", state_dict)
    kr.weights.load(create("isotropic", normalization=IMAGENET), path)
    for wrong in (None, ((0.5, 0.5, 0.5), IMAGENET[1])):
        with pytest.raises(ValueError, match=re.escape(f"create the model with normalization={IMAGENET}")):
            kr.weights.load(create("isotropic", normalization=wrong), path)


def test_files_of_ours_know_that_there_is_no_normalization(tmp_path):
    kr.weights.save(create("isotropic"), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="normalization=None"):
        kr.weights.load(create("isotropic", normalization=IMAGENET), tmp_path / "w.safetensors")


def test_misfits_are_listed_and_nothing_is_loaded(tmp_path):
    state_dict = tensors.isotropic()
    del state_dict["norm.bias"], state_dict["blocks.0.pwconv1.weight"]
    state_dict |= {f"surplus.{i}": np.zeros(1, "float32") for i in range(10, 22)}
    state_dict["head.bias"] = np.zeros(7, "float32")
    model = create("isotropic")
    before = values(model)
    with pytest.raises(ValueError) as refusal:
        kr.weights.load(model, write(tmp_path / "w.safetensors", state_dict))
    message = str(refusal.value)
    assert "2 missing: blocks.0.pwconv1.weight, norm.bias;" in message
    assert "12 surplus: surplus.10, " in message
    assert "surplus.19, and 2 more" in message
    assert "1 misshapen: head.bias: file float32 (7,), model (3,)" in message
    assert_same(values(model), before)


def test_another_number_of_classes(tmp_path):
    path = write(tmp_path / "w.pt", tensors.isotropic())
    model = create("isotropic", num_classes=5)
    before = values(model)
    with pytest.raises(ValueError, match='head="skip" keeps'):
        kr.weights.load(model, path)
    kr.weights.load(model, path, head="skip")
    np.testing.assert_array_equal(values(model)["head/kernel"], before["head/kernel"])
    np.testing.assert_array_equal(values(model)["norm/beta"], tensors.isotropic()["norm.bias"])


@pytest.mark.parametrize("name", ["convnext", "isotropic", "vit"])
def test_patch_stem_weights_into_a_conv_stem_model(name, tmp_path):
    clean, model = create(name), create(f"{name}_convstem")
    kr.weights.save(clean, tmp_path / "w.safetensors")
    before = values(model)
    with pytest.raises(ValueError, match='stem="skip" keeps'):
        kr.weights.load(model, tmp_path / "w.safetensors")
    kr.weights.load(model, tmp_path / "w.safetensors", stem="skip")
    for path, value in values(model).items():
        expected = before if path.startswith("stem/") else values(clean)
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


def test_original_convnext_names_into_a_conv_stem_model(tmp_path):
    state_dict = tensors.original_convnext()
    model = create("convnext_convstem")
    kr.weights.load(model, write(tmp_path / "w.pth", state_dict), stem="skip")
    np.testing.assert_array_equal(values(model)["stages_2_blocks_0/scale/gamma"], state_dict["stages.2.0.gamma"])
    plain = create("convnext")
    kr.weights.load(plain, tmp_path / "w.pth")
    np.testing.assert_array_equal(values(plain)["stem/norm/gamma"], state_dict["downsample_layers.0.1.weight"])


def test_position_embedding_of_another_grid(tmp_path):
    """As torch's bicubic interpolation with the published scale factor; the class token's row is kept."""
    model = create("vit", input_size=64)
    kr.weights.save(model, tmp_path / "w.safetensors")
    other = create("vit", input_size=(48, 32))
    kr.weights.load(other, tmp_path / "w.safetensors")
    native = torch.tensor(values(model)["position/embedding"]).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(native, scale_factor=(3.1 / 4, 2.1 / 4), mode="bicubic")
    expected = resized[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(values(other)["position/embedding"], expected, atol=1e-6)
    np.testing.assert_array_equal(values(other)["class_token/embedding"], values(model)["class_token/embedding"])


def test_older_names(tmp_path):
    """Swin before timm 0.9, XCiT and DeiT III of the original repositories."""
    for name, rename in {
        "swin": tensors.older_swin,
        "xcit": tensors.original_xcit,
        "vit_medium": tensors.original_deit,
        "convnextv2": tensors.original_convnext_v2,
        "wide_resnet": tensors.trades_with_sub_block,
    }.items():
        model, other = create(name), create(name)
        kr.weights.save(model, tmp_path / "w.safetensors")
        kr.weights.load(other, write(tmp_path / "old.safetensors", rename(tensors.read(tmp_path / "w.safetensors"))))
        assert_same(values(other), values(model))


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("wide_resnet", "wide_resnet_swish", "holds no weights of|does not fit"),
        ("wide_resnet_swish", "wide_resnet", "holds no weights of|does not fit"),
        ("preact_swish", "preact_norm", "holds no weights of|does not fit"),
        ("preact", "preact_norm", r"4 missing: bn\.weight, bn\.bias"),
        ("preact_norm", "preact", r"4 surplus: bn\.bias, bn\.running_mean"),
        ("vit_average", "vit", "missing|misshapen"),
    ],
)
def test_nets_of_another_kind_are_told_by_their_names(name, other, message, tmp_path):
    """What names do not show, paddings and what shortcuts start from, differs between files of other names."""
    kr.weights.save(create(name), tmp_path / "w.safetensors")
    model = create(other)
    before = values(model)
    with pytest.raises(ValueError, match=message):
        kr.weights.load(model, tmp_path / "w.safetensors")
    assert_same(values(model), before)


def test_half_precision_files_are_read_exactly(tmp_path):
    state_dict = {name: torch.tensor(tensor).bfloat16() for name, tensor in tensors.isotropic().items()}
    torch.save(state_dict, tmp_path / "w.pt")
    from safetensors.torch import save_file

    save_file(state_dict, tmp_path / "w.safetensors")
    for path in (tmp_path / "w.pt", tmp_path / "w.safetensors"):
        model = create("isotropic")
        kr.weights.load(model, path)
        np.testing.assert_array_equal(values(model)["norm/gamma"], state_dict["norm.weight"].float().numpy())


class Unsafe:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_files_that_could_run_code_are_refused(tmp_path, capsys):
    torch.save({"model": {}, "args": Unsafe()}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="could run arbitrary code, so it is refused"):
        kr.weights.load(create("isotropic"), tmp_path / "w.pt")
    assert "must not run" not in capsys.readouterr().out


def test_other_refusals(tmp_path):
    model = create("isotropic")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        kr.weights.load(model, tmp_path / "none.pt")
    for name in ("w.pt", "w.safetensors", "w.keras", "w.weights.h5"):
        (tmp_path / name).write_bytes(b"nonsense")
        with pytest.raises(ValueError, match=name):
            kr.weights.load(model, tmp_path / name)
    (tmp_path / "w.txt").write_text("")
    with pytest.raises(ValueError, match=r"path must end in .*received"):
        kr.weights.load(model, tmp_path / "w.txt")
    with pytest.raises(ValueError, match="head must be None or"):
        kr.weights.load(model, tmp_path / "w.pt", head=True)
    path = write(tmp_path / "w.pt", {"a": np.zeros(1, "float32")})
    with pytest.raises(ValueError, match="holds no weights of isotropic: its tensors are called a"):
        kr.weights.load(model, path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds no state dict"):
        kr.weights.load(model, path)
    write(path, {**tensors.isotropic(), "norm.bias": np.zeros(4, "int64")})
    with pytest.raises(ValueError, match=r"misshapen: norm\.bias: file int64"):
        kr.weights.load(model, path)
    write(path, {**tensors.isotropic(), "module.norm.bias": np.zeros(4, "float32")})
    with pytest.raises(ValueError, match=r"two different tensors called norm\.bias"):
        kr.weights.load(model, path)


@pytest.mark.parametrize("name", ["isotropic", "resnet", "resnet50", "swin_base"])
def test_what_a_file_does_not_tell(name, tmp_path, monkeypatch):
    """Normalisation outside of the file, and of two alike architectures which it is, are warned of or stated."""
    twins = {"resnet50": "resnet", "swin_base": "swin"}
    monkeypatch.setitem(registry.ARCHITECTURES, name, registry.ARCHITECTURES[twins.get(name, name)])
    small = create(name)
    kr.weights.save(small, tmp_path / "ours.safetensors")
    path = tmp_path / "theirs.safetensors"
    save_file(load_file(tmp_path / "ours.safetensors"), path)  # without the metadata of ours
    with pytest.warns(UserWarning, match=r"theirs\.safetensors does not tell whether its net normalises") as caught:
        kr.weights.load(small, path)
    assert ("resnet50_gelu (GELU)" in str(caught[0].message)) == (name == "resnet50")
    assert ("swin_base_mimir (LayerNorm epsilon 1e-6)" in str(caught[0].message)) == (name == "swin_base")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kr.weights.load(small, path, stated=True)
        kr.weights.load(small, tmp_path / "ours.safetensors")
        if name == "isotropic":
            kr.weights.load(create(name, normalization=IMAGENET), path)


def test_files_of_ours_know_their_architecture(tmp_path, monkeypatch):
    row = ResNet((1, 1, 1, 1), (8, 12, 16, 20), stem_channels=4, stem_activation="gelu", activation="gelu")
    monkeypatch.setitem(registry.ARCHITECTURES, "resnet_gelu", row)
    kr.weights.save(create("resnet_gelu"), tmp_path / "w.safetensors")
    kr.weights.load(create("resnet_gelu"), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"holds weights of resnet_gelu, whose names and shapes resnet shares"):
        kr.weights.load(create("resnet"), tmp_path / "w.safetensors")
