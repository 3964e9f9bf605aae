import numpy as np
import pytest
from PIL import Image

from keras_robust.evaluation import open_dataset
from tests.evaluation.problem import Flat

pytestmark = pytest.mark.once


def write(folder, *names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return folder


def test_a_folder_without_splits_is_evaluated_whole(tmp_path):
    folder = write(tmp_path, *(f"{name}/{i}.png" for name in ("a", "b", "train") for i in range(5)))
    assert len(open_dataset(folder)) == 15
    assert len(open_dataset(folder, "val")) == 3


@pytest.mark.parametrize("parts", [("train", "val"), ("train", "test"), ("test",)])
def test_what_is_held_out_is_evaluated(tmp_path, parts):
    folder = write(tmp_path, *(f"{part}/{name}/1.png" for part in parts for name in ("a", "b")))
    dataset = open_dataset(str(folder))
    assert dataset.class_names == ("a", "b")
    assert {path.split("/")[-3] for path in dataset.paths} == {parts[-1]}


def test_arrays_and_photographs(tmp_path):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "whole.npz", x=images, y=[0, 1, 1])
    np.savez(tmp_path / "split.npz", x_train=images, y_train=[0, 1, 1], x_test=images[:2], y_test=[0, 1])
    assert len(open_dataset(tmp_path / "whole.npz")) == 3
    assert len(open_dataset(tmp_path / "split.npz")) == 2
    assert len(open_dataset("photo_crops")) == 1000
    source = Flat(3)
    assert open_dataset(source) is source


def test_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="'photo_crops', 'tfds:NAME'"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(ValueError, match="it holds no folders"):
        open_dataset(tmp_path)


def test_what_is_not_there_is_refused_by_the_argument(tmp_path):
    for path in ("", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"^dataset must be 'photo_crops'.*not there"):
            open_dataset(path)
