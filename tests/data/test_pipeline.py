import tarfile
from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust.data as data
from keras_robust.data import TrainPipeline
from tests.data import files

BACKEND = keras.backend.backend()
ENGINES = ("grain", "tf.data") if BACKEND == "tensorflow" else ("grain",)
on_both_engines = pytest.mark.parametrize("engine", ENGINES)
on_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="the engines are compared where both run")
# Small groups, so that a batch has several.
HEAVY = replace(data.POLICIES["heavy"], group_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return files.image_folder(tmp_path_factory.mktemp("images"))


def batches(source, count, start_step=0, policy=HEAVY, batch_size=8, engine="grain", **arguments):
    workers = 0 if engine == "grain" else 2
    pipeline = TrainPipeline(source, policy, 32, batch_size, workers=workers, engine=engine, **arguments)
    return [tuple(map(keras.ops.convert_to_numpy, batch)) for batch in pipeline.dataset(start_step, count)]


def same(one, two):
    assert len(one) == len(two)
    for (x, y), (u, v) in zip(one, two):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


@on_both_engines
def test_batches_are_floats_in_the_unit_interval_with_soft_labels(folder, engine):
    pipeline = TrainPipeline(data.source(folder, "train"), "heavy", 32, 8, num_classes=5, engine=engine, workers=0)
    assert pipeline.steps_per_epoch == 3
    images, labels = map(keras.ops.convert_to_numpy, next(iter(pipeline.dataset())))
    assert images.shape == (8, 32, 32, 3)
    assert labels.shape == (8, 5)
    assert images.dtype == labels.dtype == "float32"
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert np.std(images) > 0.1
    np.testing.assert_allclose(labels.sum(axis=1), 1.0, atol=1e-6)
    assert labels.min() >= 0.02 - 1e-6  # 0.1 of smoothing over five classes


@on_tensorflow
@pytest.mark.parametrize("shard", [(1, 1), (2, 4)])
def test_both_engines_give_the_same_bits(folder, tmp_path, shard, capfd):
    """Of files that are no JPEG, which tf.data crops while it decodes them."""
    for path in folder.rglob("*.jpg"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        Image.open(path).save(tmp_path / path.parent.name / f"{path.stem}.png")
    source = data.source(tmp_path, None)
    one, other = (batches(source, 3, start_step=2, engine=engine, shard=shard) for engine in ENGINES)
    same(one, other)
    assert "JPEG" not in capfd.readouterr().err  # TensorFlow's reader of those complains of each other file


@on_tensorflow
def test_both_engines_give_the_same_jpegs_but_for_the_borders_of_crops(folder):
    policy = replace(HEAVY, operations=(), erase_probability=0.0, mixup_alpha=0.0, cutmix_alpha=0.0)
    one, other = (batches(data.source(folder, "train"), 3, engine=engine, policy=policy) for engine in ENGINES)
    for (x, y), (u, v) in zip(one, other):
        np.testing.assert_array_equal(y, v)
        assert np.abs(x - u).max() < 16 / 255
        assert np.abs(x - u).mean() < 0.25 / 255


@on_tensorflow
@on_both_engines
def test_a_batch_does_not_depend_on_where_the_stream_started(folder, engine):
    source = data.source(folder, "train")
    whole = batches(source, 7, engine=engine)  # of two epochs and a third
    same(batches(source, 3, start_step=4, engine=engine), whole[4:])
    assert not np.array_equal(whole[0][0], whole[3][0])
    other = batches(source, 1, seed=1, engine=engine)
    assert not np.array_equal(other[0][0], whole[0][0])


@on_tensorflow
@on_both_engines
@pytest.mark.parametrize("shards", [2, 4])
def test_shards_are_parts_of_the_same_batch(folder, shards, engine):
    """Groups of four: two shards leave them whole, four cut each in two."""
    source = data.source(folder, "train")
    whole = batches(source, 2, start_step=2, engine=engine)
    parts = [batches(source, 2, start_step=2, shard=(i, shards), engine=engine) for i in range(1, shards + 1)]
    same([tuple(np.concatenate(each) for each in zip(*step)) for step in zip(*parts)], whole)


@on_tensorflow
@on_both_engines
def test_every_image_once_in_an_epoch(folder, engine):
    """With the whole image as the crop and nothing else, images can be recognised."""
    source = data.source(folder, "train")
    policy = data.Policy(crop_scale=(1.0, 1.0), aspect_ratio=(1e-3, 1e3))
    policy = replace(policy, aspect_ratio=(1.0, 1.0))
    expected = {data.resize_and_crop(source.image(i), 32, crop_pct=1.0).tobytes(): i for i in range(24)}
    orders = []
    for epoch in range(2):
        stream = batches(source, 3, start_step=3 * epoch, policy=policy, engine=engine)
        seen = [expected[np.round(image * 255).astype("uint8").tobytes()] for x, _ in stream for image in x]
        labels = [label for _, y in stream for label in y.argmax(axis=1)]
        assert sorted(seen) == list(range(24))
        np.testing.assert_array_equal(labels, source.labels[seen])
        orders.append(seen)
    assert orders[0] != orders[1]


@on_tensorflow
@on_both_engines
def test_a_tar_gives_the_same_batches_as_its_folder(folder, tmp_path, engine):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(folder / "train", "train")
    tar, plain = (data.source(path, "train") for path in (tmp_path / "images.tar", folder))
    same(batches(tar, 2, engine=engine), batches(plain, 2, engine=engine))


@on_tensorflow
@on_both_engines
def test_training_and_evaluation_see_the_same_pixels_of_every_kind_of_file(tmp_path, engine):
    """Square files of the output's size, cropped whole: nothing is resized, so the decoders are compared."""
    photo = np.ascontiguousarray(np.asarray(Image.fromarray(files.photographs(1)[0][0]).resize((32, 32))))
    image = Image.fromarray(photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "plain.jpg": lambda path: image.save(path, quality=90),
        "grey.jpg": lambda path: image.convert("L").save(path, quality=90),
        "cmyk.jpg": lambda path: image.convert("CMYK").save(path, quality=90),
        "turned.jpg": lambda path: image.save(path, quality=90, exif=exif),
        "progressive.jpg": lambda path: image.save(path, quality=90, progressive=True),
        "rgb.png": lambda path: image.save(path),
        "alpha.png": lambda path: image.convert("RGBA").save(path),
        "palette.png": lambda path: image.convert("P").save(path),
        "deep.png": lambda path: Image.fromarray(photo[..., 0].astype(np.uint16) * 257).save(path),
        "photo.webp": lambda path: image.save(path, lossless=True),
        "animated.gif": lambda path: image.convert("P").save(path, save_all=True, append_images=[image.rotate(90)]),
    }
    for name, save in kinds.items():
        (tmp_path / name.split(".")[0]).mkdir()
        save(tmp_path / name.split(".")[0] / name)
    source = data.source(tmp_path, None)
    policy = data.Policy(crop_scale=(1.0, 1.0), aspect_ratio=(1.0, 1.0))
    ((x, y),) = batches(source, 1, policy=policy, batch_size=len(kinds), engine=engine)
    for image, label in zip(x, y.argmax(axis=1)):
        np.testing.assert_array_equal(np.round(image * 255), source.image(label), err_msg=source.class_names[label])


@on_tensorflow
@on_both_engines
def test_corrupt_files_are_named(folder, tmp_path, engine):
    source = damaged(folder, tmp_path)
    with pytest.raises(Exception, match=r"005\.jpg cannot be read as an image"):
        batches(source, 3, engine=engine)


@on_tensorflow
@on_both_engines
def test_corrupt_files_are_skipped_on_request(folder, tmp_path, engine):
    source = damaged(folder, tmp_path)
    pipeline = TrainPipeline(source, HEAVY, 32, 8, skip_corrupt=True, engine=engine, workers=0)
    assert pipeline.steps_per_epoch == 3
    one = [tuple(map(keras.ops.convert_to_numpy, batch)) for batch in pipeline.dataset(steps=3)]
    assert {name[-7:] for name in pipeline.skipped} == {"005.jpg", "006.jpg", "023.jpg"}
    same(batches(source, 2, start_step=1, skip_corrupt=True, engine=engine), one[1:])
    # Nothing else has changed: without mixing, all images but three are those of the undamaged folder.
    policy = replace(HEAVY, mixup_alpha=0.0, cutmix_alpha=0.0)
    before, after = (
        np.concatenate([x for x, _ in batches(each, 3, policy=policy, skip_corrupt=True, engine=engine)])
        for each in (data.source(folder, "train"), source)
    )
    assert (before != after).any(axis=(1, 2, 3)).sum() == 3


def damaged(folder, tmp_path):
    """A copy in which one file is cut off, the next is text, and so is the last of all."""
    for path in folder.rglob("*.jpg"):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[:600] if path.name == "005.jpg" else path.read_bytes())
        if path.name in ("006.jpg", "023.jpg"):
            copy.write_text("no image")
    return data.source(tmp_path, "train")


@on_tensorflow
@on_both_engines
def test_a_source_of_arrays_needs_no_files(tmp_path, engine):
    images, labels = files.photographs(10)
    small = np.stack([data.resize_and_crop(image, 24, crop_pct=1.0) for image in images])
    np.savez(tmp_path / "small.npz", x=small, y=labels)
    ((x, y),) = batches(data.source(tmp_path / "small.npz", None), 1, batch_size=10, policy="heavy", engine=engine)
    assert x.shape == (10, 32, 32, 3)
    assert y.shape == (10, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "strong"}, "policy must be one of 'heavy', 'basic'; received 'strong'"),
        ({"policy": None}, "policy must be a name or a kr.data.Policy; received None"),
        ({"batch_size": 25}, "batch_size must be at most the number of images, 24; received 25"),
        ({"num_classes": 2}, "num_classes must be at least the source's 3; received 2"),
        ({"shard": (3, 2)}, r"1 <= i <= n; received \(3, 2\)"),
        ({"shard": (0, 2)}, "shard must be an integer >= 1; received 0"),
        ({"shard": 2}, "shard must be a pair"),
        ({"shard": (1, 3)}, "batch_size must be a multiple of the number of shards, 3; received 8"),
        ({"seed": -1}, "seed must be an integer >= 0; received -1"),
        ({"resolution": 0}, "resolution must be an integer >= 1"),
        ({"workers": -1}, "workers must be an integer >= 0; received -1"),
        ({"engine": "dali"}, "engine must be one of 'grain', 'tf.data'; received 'dali'"),
        ({"engine": "tf.data", "on_device": True}, "on_device=True needs engine='grain'; received 'tf.data'"),
        ({"policy": data.POLICIES["heavy"].device_part}, "policy must crop: .*received crop_scale=None"),
    ],
)
def test_bad_arguments(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainPipeline(
            data.source(folder, "train"), **{"policy": "heavy", "resolution": 32, "batch_size": 8, **arguments}
        )
