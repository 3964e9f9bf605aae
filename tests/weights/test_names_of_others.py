"""Files of weights as others write them: wrappers, Lightning, the Hub's shards, and names of one's own."""

import json
import pickle
import re
import zipfile
from contextlib import contextmanager

import keras
import numpy as np
import pytest
import torch

import keras_robust as kr

from . import tensors
from .small import create, values, write

pytestmark = [
    pytest.mark.usefixtures("small_models"),
    pytest.mark.once,
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def assert_loaded(model):
    np.testing.assert_array_equal(values(model)["norm/gamma"], tensors.isotropic()["norm.weight"])


@pytest.mark.parametrize("form", ["{}.{}", "1.{1}", "module.1.{1}", "model.net.{1}", "backbone.{1}", "_orig_mod.{1}"])
@pytest.mark.parametrize("inside", [False, True])
def test_wrappers_before_and_within_names(form, inside, tmp_path):
    state = {form.format("net", name): tensor for name, tensor in tensors.isotropic().items()}
    if inside:
        state = {re.sub(r"blocks\.1\.", "blocks.1._orig_mod._fsdp_wrapped_module.", k): v for k, v in state.items()}
    model = create("isotropic")
    kr.weights.load(model, write(tmp_path / "w.safetensors", state))
    assert_loaded(model)


@pytest.mark.parametrize(
    ("names", "unit"),
    [(("0.mean", "0.std"), 1), (("mu", "sigma"), 1), (("normalize.mean", "normalize.std"), 255), (("mean", "std"), 1)],
)
def test_a_sequence_of_normalisation_and_net(names, unit, tmp_path):
    """Numbers for pixels up to 255 are the same function of pixels in [0, 1]."""
    state = {f"1.{name}": tensor for name, tensor in tensors.isotropic().items()}
    for name, numbers in zip(names, (MEAN, STD)):
        state[name] = unit * np.array(numbers, "float32").reshape(1, 3, 1, 1)
    path = write(tmp_path / "w.safetensors", state)
    model = create("isotropic", normalization=(MEAN, STD))
    kr.weights.load(model, path)
    assert_loaded(model)
    with pytest.raises(ValueError, match=r"create the model with normalization=\(\(0\.485, 0\.456, 0\.406\)"):
        kr.weights.load(create("isotropic"), path)


@pytest.mark.parametrize("name", ["w.ckpt", "pytorch_model.bin"])
def test_lightning_and_hub_files(name, tmp_path):
    state = {f"net.{key}": torch.tensor(tensor) for key, tensor in tensors.isotropic().items()}
    content = {"epoch": 3, "pytorch-lightning_version": "2.5", "state_dict": state, "optimizer_states": [{"state": {}}]}
    torch.save(content if name.endswith("ckpt") else state, tmp_path / name)
    model = create("isotropic")
    kr.weights.load(model, tmp_path / name)
    assert_loaded(model)


def shards(folder, change=None):
    state = tensors.isotropic()
    names = sorted(state)
    places = {name: f"w-{1 + (i > 5)}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        write(folder / file, {name: state[name] for name in names if places[name] == file})
    index = folder / "w.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": change(places) if change else places}))
    return index


def test_weights_in_several_files(tmp_path):
    model = create("isotropic")
    kr.weights.load(model, shards(tmp_path))
    assert_loaded(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda places: {**places, "more": "../w-1.safetensors"}, "must list files of weights beside it"),
        (lambda places: {**places, "more": "w.safetensors.index.json"}, "must list files of weights beside it"),
        (lambda places: {**places, "more": "w-1.safetensors"}, "differ in 1 tensors: more"),
        (lambda places: [places], "is not an index of weights"),
        (lambda places: {"a": 3}, "must list|is not an index of weights"),
    ],
)
def test_indices_that_are_wrong(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        kr.weights.load(create("isotropic"), shards(tmp_path, change))


def test_a_missing_shard(tmp_path):
    index = shards(tmp_path)
    (tmp_path / "w-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"w-2\.safetensors, which w\.safetensors\.index\.json lists"):
        kr.weights.load(create("isotropic"), index)


def test_names_of_ones_own(tmp_path):
    state = {f"my.encoder.{name}": tensor for name, tensor in tensors.isotropic().items()}
    path = write(tmp_path / "w.safetensors", {**state, "my.projection": np.zeros(3, "float32")})
    model = create("isotropic")
    with pytest.raises(ValueError, match="holds no weights of"):
        kr.weights.load(model, path)
    kr.weights.load(model, path, rename=lambda name: name[11:] if name.startswith("my.encoder.") else None)
    assert_loaded(model)
    path = write(tmp_path / "v.safetensors", state)
    kr.weights.load(model, path, rename={"my.encoder.": ""})
    with pytest.raises(ValueError, match="rename must keep names apart"):
        kr.weights.load(model, path, rename=lambda name: "one")


# Files that are damaged, or made to harm.


def test_a_pickle_that_nests_one_dict_a_million_times(tmp_path):
    """Two kilobytes, 2^40 paths: met again, a dict is passed over."""
    content = {"state": 3}
    for _ in range(40):
        content = {"a": content, "b": content}
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        kr.weights.load(create("isotropic"), tmp_path / "w.pt")


@pytest.mark.parametrize("content", [b"\x80\x02]", b"\x80\x02(lp0\nI1\na.", b"\x80\x04h\x07.", b"PK\x03\x04", b""])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".keras", ".weights.h5", ".safetensors", ".x.index.json"])
def test_damaged_files_are_one_clear_error(content, suffix, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name):
        kr.weights.load(create("isotropic"), path)


@contextmanager
def suppress_naming(name):
    """A ValueError that names the file is fine; anything else is not."""
    try:
        yield
    except ValueError as error:
        if name not in str(error):
            raise


def test_random_damage(tmp_path):
    """Bytes changed and cut in files of all kinds: an error that names the file, and no other, where it is noticed."""
    rng = np.random.default_rng(0)
    model = create("isotropic")
    for suffix in (".pt", ".safetensors", ".keras"):
        path = tmp_path / f"w{suffix}"
        if suffix == ".keras":
            model.save(path)
        else:
            write(path, tensors.isotropic())
        whole = bytearray(path.read_bytes())
        for _ in range(12):
            broken = whole[:]
            for place in rng.integers(0, len(whole), 20):
                broken[place] = rng.integers(256)
            path.write_bytes(broken[: rng.integers(len(whole) // 2, len(whole) + 1)])
            with suppress_naming(path.name):
                kr.weights.load(model, path)


def rezipped(source, path, change):
    """A copy of an archive, its members changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return path


def test_a_keras_file_that_asks_for_more_than_it_holds(tmp_path):
    """5e8 units would be 2 GB and more; nothing is allocated."""
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    net.save(tmp_path / "net.keras")

    def change(name, content):
        return content.replace(b'"units": 3', b'"units": 500000000') if name == "config.json" else content

    path = rezipped(tmp_path / "net.keras", tmp_path / "large.keras", change)
    for load in (lambda: kr.export.load_model(path), lambda: kr.weights.load(create("isotropic"), path)):
        with pytest.raises(ValueError, match=r"large\.keras .*describes a model of 2,500,000,000 weights and holds 15"):
            load()


def test_a_keras_file_that_unpacks_to_gigabytes(tmp_path):
    create("isotropic").save(tmp_path / "net.keras")
    zeros = bytes(200 * 2**20)
    path = rezipped(
        tmp_path / "net.keras", tmp_path / "bomb.keras", lambda name, old: zeros if name.endswith(".h5") else old
    )
    assert path.stat().st_size < 2**19
    with pytest.raises(ValueError, match=r"bomb\.keras .*it unpacks from"):
        kr.weights.load(create("isotropic"), path)


def test_an_h5_file_that_claims_values_that_it_does_not_store(tmp_path):
    import h5py

    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file.create_dataset("layers/head/vars/0", shape=(10**9, 10), dtype="float32")
    with pytest.raises(ValueError, match=r"w\.weights\.h5 .*claims 10,000,000,000 values and stores none"):
        kr.weights.load(create("isotropic"), tmp_path / "w.weights.h5")


def test_code_in_a_lightning_file_does_not_run(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    (tmp_path / "w.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(ValueError, match=r"w\.ckpt"):
        kr.weights.load(create("isotropic"), tmp_path / "w.ckpt")
    assert "code ran" not in capsys.readouterr().out
