import io
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event

import keras_robust as kr
from keras_robust.training import AdversarialTensorBoard

X = np.random.default_rng(0).random((8, 6, 6, 3)).astype(np.float32)
Y = np.arange(8) % 2


@pytest.fixture
def trainer():
    model = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    )
    trainer = kr.AdversarialModel(model, kr.attacks.APGD(kr.ThreatModel("Linf", 8 / 255), n_iter=1))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trainer.compile(keras.optimizers.SGD(0.125), loss, metrics=["accuracy"])
    return trainer


def events(folder):
    """The records of all event files below the folder, read by hand: length, checksum, data, checksum."""
    found = []
    for path in sorted(folder.rglob("*tfevents*")):
        stream = io.BytesIO(path.read_bytes())
        while header := stream.read(12):
            found.append(Event.FromString(stream.read(int.from_bytes(header[:8], "little"))))
            stream.read(4)
    return found


def scalars(folder):
    values = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                values.setdefault(value.tag, []).append((event.step, value.simple_value))
    return values


def test_curves_are_those_of_fit(trainer, tmp_path):
    history = trainer.fit(
        X, Y, validation_data=(X, Y), epochs=2, verbose=0, callbacks=[AdversarialTensorBoard(tmp_path)]
    ).history
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    assert train.pop("epoch_learning_rate") == [(0, 0.125), (1, 0.125)]
    assert set(train) == {"epoch_loss", "epoch_accuracy"}
    assert set(validation) == {"epoch_loss", "epoch_accuracy", "epoch_robust_accuracy"}
    for prefix, curves in (("", train), ("val_", validation)):
        for tag, points in curves.items():
            expected = history[prefix + tag.removeprefix("epoch_")]
            assert [step for step, _ in points] == [0, 1]
            np.testing.assert_allclose([value for _, value in points], expected, rtol=1e-6)


@pytest.mark.once
def test_pictures_show_the_attack(trainer, tmp_path):
    board = AdversarialTensorBoard(tmp_path, trainer.validation_attack, X[:3], Y[:3], enlarge=2)
    trainer.fit(X, Y, epochs=2, verbose=0, callbacks=[board])
    pictures = [value.image for event in events(tmp_path) for value in event.summary.value if value.HasField("image")]
    assert len(pictures) == 2
    sheet = np.asarray(Image.open(io.BytesIO(pictures[-1].encoded_image_string)))
    assert sheet.shape == (pictures[-1].height, pictures[-1].width, 3) == (3 * 12 + 4, 3 * 12 + 4, 3)
    np.testing.assert_array_equal(sheet[:12:2, :12:2], np.round(X[0] * 255))
    change = sheet[14:26:2, :12:2].astype(int) - sheet[:12:2, :12:2]
    assert 0 < np.abs(change).max() <= 9  # 8/255, and rounding


@pytest.mark.once
def test_tensorboard_reads_the_files(trainer, tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    board = AdversarialTensorBoard(tmp_path, trainer.validation_attack, X[:3], Y[:3])
    trainer.fit(X, Y, epochs=1, verbose=0, callbacks=[board])
    (path,) = (tmp_path / "train").iterdir()
    loaded = list(LegacyEventFileLoader(str(path)).Load())
    assert loaded[0].file_version == "brain.Event:2"
    assert len(loaded) == 4


@pytest.mark.once
def test_two_trainings_in_one_folder_keep_both(trainer, tmp_path):
    for _ in range(2):
        trainer.fit(X, Y, epochs=1, verbose=0, callbacks=[AdversarialTensorBoard(tmp_path)])
    assert len(scalars(tmp_path)["epoch_loss"]) == 2


@pytest.mark.once
def test_without_tensorboard(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(ImportError, match="pip install tensorboard"):
        AdversarialTensorBoard("runs")


def test_pictures_need_everything(trainer):
    with pytest.raises(ValueError, match="labels"):
        AdversarialTensorBoard("runs", trainer.attack, X)
