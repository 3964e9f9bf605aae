import numpy as np
import pytest
from PIL import Image

from keras_robust import data
from keras_robust.evaluation.image_selection import is_imagenet, match_classes, read_class_names, select
from tests.evaluation.problem import Flat

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (9, 8, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def source(folder):
    return data.source(folder, None)


def test_images_are_drawn_by_the_seed():
    one, two, other = (select(Flat(40), 2, 15, seed) for seed in (1, 1, 2))
    assert one.names == two.names
    assert one.sha256 == two.sha256 != other.sha256
    assert len(set(one.index)) == 15
    np.testing.assert_array_equal(one.labels, Flat(40).labels[one.index])
    assert select(Flat(40), 2, 10, 1).names == one.names[:10]


def test_the_same_pixels_have_the_same_digest_whatever_they_came_from(folder):
    from_files = select(source(folder), 2)
    images = [source(folder).image(index) for index in from_files.index]
    assert len(set(from_files.digests)) == 8
    again = Flat(8)
    again.image = images.__getitem__
    again.labels = from_files.labels
    by_digest = dict(zip(from_files.digests, from_files.names))
    selection = select(again, 2, seed=5)
    assert [by_digest[digest] for digest in selection.digests] == [from_files.names[i] for i in selection.index]


def test_corrupt_files_are_named(folder):
    (folder / "cat" / "1.png").write_text("no image")
    whole = (folder / "dog" / "2.png").read_bytes()
    (folder / "dog" / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"2 of 8 images are corrupt: .*1\.png cannot be read as an image") as error:
        select(source(folder), 2)
    assert "2.png" in str(error.value)


def test_corrupt_files_are_replaced_by_the_next(folder):
    before = select(source(folder), 2, 4)
    name = before.names[1]
    (folder / name).write_text("no image")
    after = select(source(folder), 2, 4, skip_corrupt=True)
    assert after.names[:3] == (before.names[0], *before.names[2:])
    assert after.names[3] == select(source(folder), 2, 5, skip_corrupt=True).names[3]
    assert len(after) == 4
    assert len(after.skipped) == 1
    assert name in after.skipped[0]
    with pytest.raises(ValueError, match="dataset has 7 readable images, fewer than the 8 asked for"):
        select(source(folder), 2, 8, skip_corrupt=True)
    assert len(select(source(folder), 2, skip_corrupt=True)) == 7


def test_list_of_images(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "list.txt"
    path.write_text("dog/3.png\ncat/0.png\ndog/1.png\n")
    selection = select(source(folder), 2, 2, seed=9, image_list=path)
    assert selection.names == ("dog/3.png", "cat/0.png")
    np.testing.assert_array_equal(selection.labels, [1, 0])
    path.write_text("dog/3.png\ncat/7.png\n")
    with pytest.raises(ValueError, match=r"of 2 in list\.txt, 1 are not there: cat/7\.png"):
        select(source(folder), 2, image_list=path)
    path.write_text("\n")
    with pytest.raises(ValueError, match=r"list\.txt is empty"):
        select(source(folder), 2, image_list=path)
    path.write_text("photo\n")
    unnamed = Flat(8)
    unnamed.identifier = lambda index: "photo"
    with pytest.raises(ValueError, match="image_list needs images with different names; of 8, 7 have another's"):
        select(unnamed, 2, image_list=path)


def test_classes_are_matched_by_name(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("lists") / "classes.tsv"
    path.write_text("index\twnid\tname\n0\tn0\tdog\n1\tn1\tbird\n2\tn2\tcat\n")
    selection = select(source(folder), 3, class_names=path)
    assert selection.outputs == ("dog", "bird", "cat")
    by_name = {"cat": 2, "dog": 0}
    assert [by_name[name.split("/")[0]] for name in selection.names] == list(selection.labels)
    assert read_class_names(path)[1] == ("1", "n1", "bird")


@pytest.mark.parametrize(
    ("classes", "num_classes", "names", "expected"),
    [
        (("a", "b"), 2, None, [0, 1]),
        (("0", "7"), 10, None, [0, 7]),  # outputs by number
        (("b",), 2, ["a", "b"], [1]),
    ],
)
def test_classes_that_match(classes, num_classes, names, expected):
    aliases = None if names is None else read_class_names(names)
    np.testing.assert_array_equal(match_classes(classes, num_classes, aliases).outputs, expected)


@pytest.mark.parametrize(
    ("classes", "num_classes", "names", "message"),
    [
        (("a", "b"), 3, None, r"the dataset has 2 classes \(a, b, ...\), the model 3 outputs"),
        (("a", "b", "c"), 2, None, "the dataset has 3 classes"),
        (("0", "12"), 10, None, "the dataset has 2 classes"),
        (("a", "x"), 2, ["a", "b"], "not there are 1 of 2: x"),
        (("a",), 3, ["a", "b"], "class_names must be the model's 3 outputs; received 2"),
    ],
)
def test_classes_that_do_not_match(classes, num_classes, names, message):
    with pytest.raises(ValueError, match=message):
        match_classes(classes, num_classes, None if names is None else read_class_names(names))


def test_imagenet_is_recognised_by_its_classes():
    assert is_imagenet(Flat(2, class_names=tuple(f"n{i:08}" for i in range(1000))))
    assert not is_imagenet(Flat(2, class_names=tuple(f"n{i:08}" for i in range(10))))
    assert not is_imagenet(Flat(2, class_names=tuple(f"class{i}" for i in range(1000))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_examples": 6}, "n_examples must be at most the 5 images there are; received 6"),
        ({"n_examples": 0}, "n_examples must be an integer >= 1"),
        ({"class_names": []}, "class_names must hold at least one name"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        select(Flat(5), 2, **arguments)


def test_no_images():
    empty = Flat(1)
    empty.labels = empty.labels[:0]
    with pytest.raises(ValueError, match="it is empty"):
        select(empty, 2)


def test_images_that_are_no_rgb_are_named():
    grey = Flat(3)
    grey.image = lambda index: np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match=r"image 0 must be uint8 of shape \(height, width, 3\); received uint8"):
        select(grey, 2)
