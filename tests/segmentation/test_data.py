"""Images with masks: where they come from, and what training makes of both alike."""

import io
import tarfile

import keras
import numpy as np
import pytest
from PIL import Image

import keras_robust as kr
from keras_robust.segmentation.sources import LAYOUTS, decode_mask, pairs_sha256, resized, resized_and_cropped
from tests.published_nets import FOLDER as SHARED

pytestmark = pytest.mark.once
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 20, 30, 3)).astype("uint8")
MASKS = RNG.integers(0, 11, (3, 20, 30)).astype("uint8")


def png(array, palette=False):
    picture = Image.fromarray(array)
    if palette:
        picture.putpalette(RNG.integers(0, 256, 768).astype("uint8").tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def files(layout):
    row, ignored = LAYOUTS[layout], {"camvid": 11, "voc": 255, "ade20k": 255}[layout]
    split = "training" if layout == "ade20k" else "train"
    found = {}
    for i, name in enumerate(("b", "a", "c")):
        mask = MASKS[i].copy()
        mask[0, :5] = ignored
        found[f"{row.images.format(split=split)}/{name}.png"] = png(IMAGES[i])
        found[f"{row.masks.format(split=split)}/{name}.png"] = png(mask, palette=layout == "voc")
    if row.split_list:
        found[row.split_list.format(split="train")] = b"a\nb\n"
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", ".tar", ".tar.gz"])
def test_layouts(layout, kind, tmp_path):
    content = files(layout)
    path = tmp_path / f"data{'' if kind == 'folder' else kind}"
    if kind == "folder":
        for name, data in content.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        with tarfile.open(path, "w:gz" if kind.endswith("gz") else "w") as archive:
            for name, data in content.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    source = kr.segmentation.source(path, "train", layout)
    assert [name[0] for name in source.names] == (["a", "b"] if layout == "voc" else ["a", "b", "c"])
    image, mask = source[0]
    np.testing.assert_array_equal(image, IMAGES[1])
    np.testing.assert_array_equal(mask[1:], MASKS[1][1:])
    assert (mask[0, :5] == -1).all()
    assert mask.dtype == np.int32
    x, y = source.arrays(10, 15)
    assert x.shape == (len(source), 10, 15, 3)
    assert y.shape == (len(source), 10, 15)
    assert x.dtype == np.uint8
    with pytest.raises(ValueError, match="val"):
        kr.segmentation.source(path, "val", layout)


def test_the_hash_of_a_source_is_that_of_its_files(tmp_path):
    content = files("camvid")
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        for name, data in content.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
            archive.add(tmp_path / name, name)
    whole, packed = (kr.segmentation.source(path) for path in (tmp_path, tmp_path / "data.tar"))
    assert pairs_sha256(whole) == pairs_sha256(packed)
    mask = tmp_path / "trainannot" / "b.png"
    mask.write_bytes(png(np.roll(MASKS[0], 1, axis=1)))
    assert pairs_sha256(whole) != pairs_sha256(packed)


def test_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a mask has one number for each pixel; .* mode RGB"):
        decode_mask(png(IMAGES[0]))
    with pytest.raises(ValueError, match="cannot be read as a mask"):
        decode_mask(b"nothing")
    for change, message in (
        (
            {"trainannot/a.png": png(MASKS[0] + 12)},
            r"classes in \[0, 10\] or 11, for pixels that do not count; received",
        ),
        ({"trainannot/a.png": png(MASKS[0][:10])}, r"of its image's size, \(20, 30\); received \(10, 30\)"),
    ):
        folder = tmp_path / message[:7]
        for name, data in {**files("camvid"), **change}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match=message):
            kr.segmentation.source(folder)[0]
    (folder / "trainannot/b.png").unlink()
    with pytest.raises(ValueError, match=r"lacks the masks of 1 images: b\.png"):
        kr.segmentation.source(folder)
    with pytest.raises(ValueError, match="Did you mean 'camvid'"):
        kr.segmentation.source(folder, layout="camvi")


@pytest.mark.parametrize(("shape", "size"), [((30, 60), (10, 10)), ((45, 30), (10, 12)), ((24, 32), (12, 16))])
def test_centre_of_what_covers_a_size(shape, size):
    """Of a mask of three vertical or horizontal bands only the middle is left where the sides are cut off."""
    mask = np.zeros(shape, "int32")
    mask[shape[0] // 3 : -(shape[0] // 3), shape[1] // 3 : -(shape[1] // 3)] = 7
    image = np.repeat(mask[..., None], 3, -1).astype("uint8") * 30
    x, y = resized_and_cropped(image, mask, size)
    assert x.shape == (*size, 3)
    assert y.shape == size
    for axis in (0, 1):  # symmetric, and so at the centre, but for a pixel
        share = (y == 7).mean(1 - axis)
        assert abs((share > 0).argmax() - (share[::-1] > 0).argmax()) <= 1
    if shape[0] * size[1] == shape[1] * size[0]:
        np.testing.assert_array_equal(y, resized(image, mask, size)[1])


@pytest.fixture
def pairs():
    """Images whose first channel is their mask."""
    return [(np.stack([mask, mask, mask], -1) * 20, mask.astype("int32")) for mask in MASKS.repeat(2, 1).repeat(2, 2)]


@pytest.mark.parametrize("scale", [(0.5, 0.6), (1.0, 1.0), (1.5, 2.0)])
def test_image_and_mask_move_alike(pairs, scale):
    batches = kr.segmentation.MaskBatches(pairs, (24, 32), batch_size=3, scale=scale, blur_probability=0.0)
    images, labels = batches[0]
    assert images.shape == (3, 24, 32, 3)
    assert labels.shape == (3, 24, 32)
    assert images.dtype == np.float32
    counted = labels >= 0
    if scale[1] < 1:
        assert 0.2 < counted.mean() < 0.45  # of the area, (0.55)^2 and a little more
        assert (images[~counted] == 0).all()
    else:
        assert counted.all()
    # Bilinear and nearest pixels of one and the same map.
    shown = np.rint(images[..., 0] * 255 / 20)[counted]
    # Made smaller, a pixel of the one is a mean over several of the other's; what is not aligned is near 0.
    assert np.corrcoef(shown, labels[counted])[0, 1] > (0.8 if scale[0] >= 1 else 0.5)


def test_batches_are_a_function_of_seed_and_epoch(pairs):
    def make(**options):
        return kr.segmentation.MaskBatches(pairs, (24, 32), batch_size=2, **options)

    first, going_on = make(), make(first_epoch=1)
    epochs = []
    for _ in range(2):
        epochs.append([first[i] for i in range(len(first))])
        first.on_epoch_end()
    for (x, y), (x_again, y_again) in zip(epochs[1], [going_on[0]]):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
    assert np.abs(epochs[0][0][0] - epochs[1][0][0]).max() > 0.1
    assert np.abs(make(seed=1)[0][0] - epochs[0][0][0]).max() > 0.1
    assert make(blur_probability=1.0)[0][0].std() < make(blur_probability=0.0)[0][0].std()
    with pytest.raises(ValueError, match="at most the number of images, 3; received 4"):
        kr.segmentation.MaskBatches(pairs, (24, 32), batch_size=4)
    with pytest.raises(ValueError, match="0 < low <= high"):
        make(scale=(2.0, 1.0))


@pytest.mark.shared_data
@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="real data that is not part of the repository")
def test_camvid():
    path = SHARED / "camvid" / "camvid-320x240.tar"
    sources = {split: kr.segmentation.source(path, split) for split in ("train", "val", "test")}
    assert [len(source) for source in sources.values()] == [367, 101, 233]
    masks = np.stack([sources["train"][i][1] for i in range(0, 367, 20)])
    share = np.bincount(masks[masks >= 0], minlength=11) / (masks >= 0).sum()
    published = np.array([15.8, 24.1, 1.0, 29.3, 6.7, 11.2, 1.1, 1.4, 4.6, 0.6, 0.5]) / 100
    np.testing.assert_allclose(share, published, atol=0.05)


def test_training_goes_on_with_the_same_batches(pairs):
    def batches(**options):
        return kr.segmentation.MaskBatches(pairs, (24, 32), batch_size=1, **options)

    def net():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(11, 1)])
        model.compile(keras.optimizers.SGD(0.1), kr.segmentation.PixelCrossEntropy())
        return model

    whole, parts, again = net(), net(), net()
    whole.fit(batches(), epochs=2, shuffle=False, verbose=0)
    for model, first_epoch in ((parts, 1), (again, 0)):
        model.fit(batches(), epochs=1, shuffle=False, verbose=0)
        model.fit(batches(first_epoch=first_epoch), initial_epoch=1, epochs=2, shuffle=False, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), parts.get_weights()))
    assert not all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), again.get_weights()))
