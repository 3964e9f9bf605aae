"""Archives of images: .tar and .npz, whole, broken and hostile."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

import keras_robust.data as data
from keras_robust import files as package_files
from keras_robust.data.sources import tar
from tests.data import files
from tests.published_nets import FOLDER as SHARED

pytestmark = pytest.mark.once

shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason="real data that is not part of the repository")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return files.image_folder(tmp_path_factory.mktemp("images"), n=12)


def pack(path, members, mode="w"):
    """A tar of (name or TarInfo, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def png(value=0):
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (value, value, value)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
@pytest.mark.parametrize("inside", ["", "photos/2024/"])
def test_archive_is_the_folder_that_was_packed(folder, tmp_path, name, mode, inside):
    with tarfile.open(tmp_path / name, mode) as archive:
        archive.add(folder / "train", f"{inside}train")
    source, plain = data.source(tmp_path / name, "train"), data.source(folder, "train")
    assert source.class_names == plain.class_names
    np.testing.assert_array_equal(source.labels, plain.labels)
    for index in (11, 0, 5):
        np.testing.assert_array_equal(source.image(index), plain.image(index))
        assert source.name(index).endswith(plain.name(index)[-9:])
    with pytest.raises(ValueError, match=r"split must be one that .* has, 'train'; received 'val'"):
        data.source(tmp_path / name, "val")


def test_flat_archive_is_split_like_a_flat_folder(tmp_path):
    members = [(f"{name}/{i}.png", png(i)) for name in "ab" for i in range(10)]
    for name, content in members:
        (tmp_path / "flat" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "flat" / name).write_bytes(content)
    pack(tmp_path / "flat.tar", members)
    for split in ("train", "val"):
        tar_source, plain = (data.source(tmp_path / name, split) for name in ("flat.tar", "flat"))
        assert [tar_source.image(i)[0, 0, 0] for i in range(len(plain))] == [
            plain.image(i)[0, 0, 0] for i in range(len(plain))
        ]


def test_hidden_files_are_passed_over(tmp_path):
    path = pack(tmp_path / "a.tar", [("a/1.png", png()), ("a/._1.png", b"resource fork"), ("b/2.png", png())])
    assert len(data.source(path, None)) == 2


def link(name, target, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("../a/1.png", b"")], "names inside of it; received '../a/1.png'"),
        ([("/a/1.png", b"")], "names inside of it; received '/a/1.png'"),
        ([("a/b/../../../1.png", b"")], "names inside of it"),
        ([(link("a/1.png", "/etc/passwd", tarfile.SYMTYPE), b"")], "'a/1.png' is neither"),
        ([(link("a/1.png", "a/2.png", tarfile.LNKTYPE), b"")], "'a/1.png' is neither"),
        ([(link("a/1.png", "", tarfile.FIFOTYPE), b"")], "'a/1.png' is neither"),
        ([("1.png", b"")], "one folder of images per class; it holds no folders"),
        ([], "it is empty"),
    ],
)
def test_hostile_or_useless_archives_are_refused(tmp_path, members, message):
    with pytest.raises(ValueError, match=f"a.tar .*{message}"):
        data.source(pack(tmp_path / "a.tar", members), None)


def test_sizes_are_bounded(tmp_path, monkeypatch):
    members = [("a/1.png", bytes(600)), ("b/1.png", bytes(600))]
    monkeypatch.setattr(tar, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ValueError, match="unpacks to more than 1,000 bytes"):
        data.source(pack(tmp_path / "a.tar.gz", members, "w:gz"), None)
    monkeypatch.setattr(tar, "MAX_MEMBER_BYTES", 500)
    with pytest.raises(ValueError, match=r"at most 500 bytes; 'a/1\.png' has 600"):
        data.source(pack(tmp_path / "a.tar", members), None)


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_truncated_archives_are_refused(folder, tmp_path, name, mode):
    with tarfile.open(tmp_path / name, mode) as archive:
        archive.add(folder / "train", "train")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name} cannot be read as a tar archive"):
        data.source(tmp_path / name, "train")


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_damaged_archives_are_refused(tmp_path, monkeypatch, name, mode):
    """`tarfile` takes a damaged header, or zeros in its place, for the end of the archive."""
    path = pack(tmp_path / "whole.tar", [(f"a/{i}.png", png(i)) for i in range(6)])
    whole, header = path.read_bytes(), 3 * 1024  # a header and a block of content for each file
    flipped = bytearray(whole)
    flipped[header] ^= 1
    damages = {
        "the header of a member is damaged: bad checksum": flipped,
        "the header of a member is damaged: truncated": whole[: header + 100],
        "it was cut: it has no end": whole[:header],
        "it goes on after its end at byte 3,072": whole[:header] + bytes(512) + whole[header + 512 :],
        "it goes on after its end at byte 6,144": whole + whole,
    }
    opened = gzip.open if mode == "w:gz" else open
    for message, content in damages.items():
        with opened(tmp_path / name, "wb") as file:
            file.write(content)
        with pytest.raises(ValueError, match=f"{name} cannot be read as a tar archive: {message}"):
            data.source(tmp_path / name, None)
    with opened(tmp_path / name, "wb") as file:
        file.write(whole)
    assert len(data.source(tmp_path / name, None)) == 6
    monkeypatch.setattr(tar, "MAX_END_BYTES", 2048)  # as of a file that was allocated and not yet downloaded
    with pytest.raises(ValueError, match="it goes on after its end"):
        data.source(tmp_path / name, None)


def test_corrupt_images_are_named(tmp_path):
    source = data.source(pack(tmp_path / "a.tar", [("a/1.png", b"no image"), ("b/1.png", png())]), None)
    with pytest.raises(ValueError, match=r"a\.tar:a/1\.png cannot be read as an image"):
        source.image(0)


def save(path, **named):
    np.savez(path, **named)
    return path


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), np.uint8)
LABELS = np.arange(20) % 2


def test_arrays_with_their_own_splits(tmp_path):
    path = save(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:3], y_test=LABELS[:3])
    assert len(data.source(path, "whole_train")) == len(IMAGES)
    assert [len(data.source(path, split)) for split in ("train", "val", "test")] == [16, 4, 3]
    with pytest.raises(ValueError, match="split must be one of 'train', 'test'"):
        data.source(path, None)


def test_arrays_that_lie_about_their_size_or_grow(tmp_path):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 1000, 1000, 3), }"
    for count, body in ((8000, 10), (8, 10)):
        text = header % count
        npy = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(body)
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", npy)
            archive.writestr("y.npy", npy)
        with pytest.raises(ValueError, match=r"says .* bytes and has 10"):
            data.source(tmp_path / "a.npz", None)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(2**27))
    with pytest.raises(ValueError, match=r"it unpacks from .* to 134,217,728 bytes"):
        data.source(tmp_path / "a.npz", None)
    for header in (b"\x93NUMPY\x01\x00\x08\x00((((((((", b"\x93NUMPY\x01\x00\x10\x00{'descr': 'O(8)'", b""):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("x.npy", header)
            archive.writestr("y.npy", header)
        with pytest.raises(ValueError, match=r"a\.npz cannot be read as an \.npz"):
            data.source(tmp_path / "a.npz", None)


@pytest.mark.parametrize("shape", [(20, 5, 4, 3), (20, 5, 4, 1), (20, 5, 4)])
def test_arrays_of_grey_and_colour(tmp_path, shape):
    images = IMAGES[..., :1].reshape(shape) if shape[-1] != 3 else IMAGES
    source = data.source(save(tmp_path / "a.npz", images=images, labels=LABELS[:, None]), None)
    expected = np.broadcast_to(images[7].reshape(5, 4, -1), (5, 4, 3))
    np.testing.assert_array_equal(source.image(7), expected)
    assert source.class_names == ("0", "1")


def test_arrays_are_split_by_class(tmp_path):
    path = save(tmp_path / "a.npz", x=IMAGES, y=LABELS, class_names=np.array(["cat", "dog"]))
    train, val = (data.source(path, split) for split in ("train", "val"))
    assert train.class_names == ("cat", "dog")
    assert (len(train), len(val)) == (16, 4)
    np.testing.assert_array_equal(np.bincount(val.labels), [2, 2])
    pixels = sorted(source.image(i).tobytes() for source in (train, val) for i in range(len(source)))
    assert pixels == sorted(image.tobytes() for image in IMAGES)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"x": IMAGES}, "it must hold 'y' or 'labels'; it holds \\['x'\\]"),
        ({"x": IMAGES / 255, "y": LABELS}, "uint8 .* received float64"),
        ({"x": IMAGES[..., :2], "y": LABELS}, "received uint8 of shape \\(20, 5, 4, 2\\)"),
        ({"x": IMAGES, "y": LABELS[:9]}, "one integer label per image"),
        ({"x": IMAGES, "y": LABELS / 2}, "one integer label per image"),
        ({"x": IMAGES, "y": LABELS - 1}, r"labels in \[0, 0\]; received values in \[-1, 0\]"),
        ({"x": IMAGES, "y": LABELS, "class_names": np.array(["cat"])}, r"labels in \[0, 0\]"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "it holds none"),
        ({"x": np.array([object()]), "y": LABELS[:1]}, "holds Python objects"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, named, message):
    with pytest.raises(ValueError, match=message):
        data.source(save(tmp_path / "a.npz", **named), None)


def test_array_files_that_are_none_or_too_large(tmp_path, monkeypatch):
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as an \.npz"):
        data.source(tmp_path / "a.npz", None)
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(5000))
    monkeypatch.setattr(package_files, "MAX_UNPACKED_BYTES", 4000)
    with pytest.raises(ValueError, match="unpacks from 22 to 5,000 bytes, more than the 4,000 accepted"):
        data.source(tmp_path / "b.npz", None)


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "which is not there"), ("notes.txt", "which is a file of another kind")]
)
def test_what_is_no_source(tmp_path, name, message):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=message):
        data.source(tmp_path / name, "train")
    with pytest.raises(ValueError, match="path_or_name must be a path, a name or a list of paths; received 3"):
        data.source(3, "train")
    with pytest.raises(ValueError, match="split must be 'train' or 'val' for photo_crops"):
        data.source("photo_crops", None)


def test_summary_reports_imbalance(folder):
    assert data.source(folder, "train").summary() == "12 images of 3 classes, from 3 (b) to 6 (a)"
    assert data.source("photo_crops", "val").summary() == "1,000 images of 10 classes, 100 each"


@pytest.mark.shared_data
@shared_data
def test_imagenette():
    train = data.source(SHARED / "imagenette" / "imagenette-train-128.tar", "train")
    assert train.summary() == "9,469 images of 10 classes, from 858 (n03000684) to 993 (n02979186)"
    assert train.image(9468).shape == (128, 128, 3)
    assert len(data.source(SHARED / "imagenette" / "imagenette-val-192.tar", "val")) == 3925


@pytest.mark.shared_data
@shared_data
def test_lossless_cifar():
    source = data.source(SHARED / "robust-checkpoints" / "cifar10-test-200-lossless.npz", None)
    with np.load(SHARED / "robust-checkpoints" / "cifar10-test-200-lossless.npz") as content:
        np.testing.assert_array_equal(source.image(199), content["x"][199])
        np.testing.assert_array_equal(source.labels, content["y"])
