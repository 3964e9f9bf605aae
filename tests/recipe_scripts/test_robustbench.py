"""RobustBench's board end to end: stand-in weights from a stand-in server, on images that need no download."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import keras_robust as kr
from keras_robust.models import registry
from keras_robust.models.convnext import IsotropicConvNeXt
from tests import published_nets, scripts
from tests.weights.servers import Answer, drive

pytestmark = pytest.mark.once
ID, OWN = "Singh2023Revisiting_ConvNeXt-T-ConvStem", "convnext_tiny_convstem_300ep"
SHARED = published_nets.FOLDER / "imagenet-samples"


@pytest.fixture
def board():
    return scripts.load("recipes/robustbench.py")


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """A small net of the name of a published one, and its file as the publication names tensors."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(registry.ARCHITECTURES, "convnext_tiny_convstem", IsotropicConvNeXt(1, 4, (2, 3, 4, 5)))
    kr.weights.save(kr.models.create("convnext_tiny_convstem"), tmp_path / "w.safetensors")
    state_dict = {f"module.{name}": tensor for name, tensor in load_file(tmp_path / "w.safetensors").items()}
    torch.save(state_dict, tmp_path / "w.pt")
    return (tmp_path / "w.pt").read_bytes()


@pytest.fixture
def quick(monkeypatch):
    """AutoAttack's version "standard" with an attack that takes no time."""
    fgsm = kr.attacks.FGSM(kr.ThreatModel("Linf", 0.1), returns="misclassified")
    evaluate = kr.evaluation.evaluate

    def with_fgsm(model, dataset, threats, resolutions, attack, *rest, **options):
        return evaluate(model, dataset, threats, resolutions, [fgsm], *rest, verbose=False, **options)

    monkeypatch.setattr(kr.evaluation, "evaluate", with_fgsm)


def photographs(folder, n):
    """`n` images in class folders called as ImageNet's, and a file of a thousand class names."""
    photos = kr.data.photo_crops("val", per_class=2)
    for i in range(n):
        path = folder / "val" / f"n{10000000 + 5 * i:08}" / f"{i}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.ascontiguousarray(photos.image(i))).save(path)
    (folder / "classes.tsv").write_text("".join(f"n{10000000 + i:08}\tname {i}\n" for i in range(1000)))
    return ["--data", str(folder / "val"), "--classes", str(folder / "classes.tsv"), "--image-list", "all"]


def test_from_download_to_entry(board, stand_in, quick, tmp_path, monkeypatch, capsys):
    given = [ID, *photographs(tmp_path, 6), "--out", str(tmp_path / "out"), "--batch-size", "3"]
    with drive(monkeypatch, tmp_path) as server:
        headers = {"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"}
        server.answer = lambda host, path, query: Answer(stand_in, headers=headers)
        for shard in ("1/2", "2/2"):  # the second without the server
            assert board.main(board.arguments([*given, "--shard", shard])) == 0
            server.answer = lambda host, path, query: Answer(status=500)
    assert board.main(board.arguments([*given, "--merge"])) == 0
    printed = capsys.readouterr().out
    assert "shard 2/2 is done" in printed
    cell = json.loads((tmp_path / "out" / ID / "report.json").read_text())["results"][0]
    assert (cell["resolution"], cell["n_examples"], round(255 * cell["eps"])) == (224, 6, 4)
    entry = json.loads((tmp_path / "out" / ID / "robustbench.json").read_text())
    assert float(entry["clean_acc"]) == pytest.approx(100 * cell["clean_accuracy"], abs=0.005)
    assert float(entry["autoattack_acc"]) == pytest.approx(100 * cell["robust_accuracy"], abs=0.005)
    assert entry["unreliable"] is True  # six images, and another attack
    assert f"{ID}, Linf 4/255, 6 images: clean " in printed
    # The same again, whole: to the byte what the shards gave.
    merged = (tmp_path / "out" / ID / "report.json").read_bytes()
    given[given.index("--out") + 1] = str(tmp_path / "whole")
    assert board.main(board.arguments(given)) == 0
    assert (tmp_path / "whole" / ID / "report.json").read_bytes() == merged


def test_one_that_cannot_be_had_does_not_stop_the_others(board, stand_in, quick, tmp_path, monkeypatch, capsys):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / f"{ID}.pt").write_bytes(stand_in)
    monkeypatch.setenv("KERAS_ROBUST_WEIGHTS", str(mirror))
    given = ["convnext_tiny_300ep", OWN, *photographs(tmp_path, 2), "--out", str(tmp_path / "out")]
    assert board.main(board.arguments(given)) == 1
    assert (tmp_path / "out" / OWN / "robustbench.json").is_file()
    assert "1 of 2 could not be evaluated: convnext_tiny_300ep" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is a mixednuts, which this version does not have"):
        board.main(board.arguments(["Bai2024MixedNUTS", "--data", "photo_crops"]))


def test_the_board_by_size(board):
    names = board.on_the_board(30)
    assert names[:2] == [ID, "Singh2023Revisiting_ViT-S-ConvStem"]
    assert "Standard_R50" in names
    assert not {"Peng2023Robust", "Bai2024MixedNUTS"} & set(names)


@pytest.mark.shared_data
@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the 200 sample images")
def test_sample_images_of_imagenet(board, stand_in, quick, tmp_path, monkeypatch):
    """One image of every fifth class, against a thousand outputs."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / f"{OWN}.pt").write_bytes(stand_in)
    monkeypatch.setenv("KERAS_ROBUST_WEIGHTS", str(tmp_path / "mirror"))
    with tarfile.open(SHARED / "imagenet-samples-200.tar") as archive:
        for member in archive.getmembers():
            path = tmp_path / "val" / member.name.split("_")[0] / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())
    given = [ID, "--data", str(tmp_path / "val"), "--out", str(tmp_path / "out"), "--image-list", "all"]
    given += ["--classes", str(SHARED / "imagenet1k-classes.tsv")]
    assert board.main(board.arguments(given)) == 0
    entry = json.loads((tmp_path / "out" / ID / "robustbench.json").read_text())
    assert "200 images" in entry["footnote"]
    report = json.loads((tmp_path / "out" / ID / "report.json").read_text())
    assert report["results"][0]["n_examples"] == 200
