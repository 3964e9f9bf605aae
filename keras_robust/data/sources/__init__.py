"""Sources of labelled images: one entry, `source`, and one file per kind."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from keras_robust.data.class_names import read_class_names
from keras_robust.data.sources.arrays import ArrayFile
from keras_robust.data.sources.base import EncodedSource, Source
from keras_robust.data.sources.folder import ImageFolder
from keras_robust.data.sources.parquet import Parquet
from keras_robust.data.sources.photo_crops import photo_crops
from keras_robust.data.sources.shards import TAR, find_shards
from keras_robust.data.sources.tar import SUFFIXES, TarArchive
from keras_robust.data.sources.webdataset import WebDataset
from keras_robust.files import printable

__all__ = ["EncodedSource", "ImageFolder", "Parquet", "Source", "WebDataset", "photo_crops", "source"]
TFDS = "tfds:"


def source(
    path_or_name: str | PathLike | Sequence[str | PathLike],
    split: str | None,
    *,
    class_names: Sequence[str] | str | PathLike | None = None,
    data_dir: str | PathLike | None = None,
    download: bool = False,
    seed: int = 0,
) -> Source:
    """The labelled images that a path or a name stands for.

    Args:
        path_or_name: "photo_crops"; a folder of image files, one folder per class (`ImageFolder`); a `.tar`, `.tar.xz`,
            `.tar.gz` of such a folder (`TarArchive`); WebDataset shards (`WebDataset`) or Parquet files (`Parquet`), as
            a pattern with braces, "train-{0000..1023}.tar", the folder that they lie in, one file or a list; an `.npz`
            of arrays (`ArrayFile`); or "tfds:NAME", a data set of TensorFlow Datasets, e.g. "tfds:imagenet2012"
            (`tfds.DataSet`).
        split: "train", "val" or "test", as far as the data set has it, by any of their usual names; "held_out" for
            "val" or else "test", or all of one that has no splits; "whole_train" for a train of which nothing is held
            out; None takes all of one that has no splits.
        class_names: of shards and Parquet files, in the order of the labels, or the path of a text file with one name a
            line; those of other kinds are in the data.
        data_dir: where "tfds:" data sets are stored, if not where TensorFlow Datasets puts them.
        download: fetch and prepare a "tfds:" data set that is not there yet. Never done unasked: ImageNet is 150 GB.
        seed: of the split of files that have none of their own.

    Raises:
        ValueError: nothing of the kind, or what the kind of source raises; the message says what is accepted.

    Example:
        >>> train = kr.data.source("imagenette-train-128.tar", "train")  # a file of 50 MB  # doctest: +SKIP
        >>> train.summary()  # doctest: +SKIP
        '9,469 images of 10 classes, from 858 (n03000684) to 993 (n02979186)'
    """
    if isinstance(path_or_name, (list, tuple)):
        named, accepted = [*path_or_name], "paths"
    else:
        named, accepted = [path_or_name], "a path, a name or a list of paths"
    for each in named:
        if not isinstance(each, (str, PathLike)) or isinstance(fspath(each), bytes):
            raise ValueError(f"path_or_name must be {accepted}; received {each!r}.")
    if split is not None and not isinstance(split, str):
        raise ValueError(f"split must be the name of a part, as 'train' or 'val', or None; received {split!r}.")
    known = isinstance(path_or_name, str) and (path_or_name == "photo_crops" or path_or_name.startswith(TFDS))
    shards = None if known else find_shards(path_or_name)
    if shards is not None:
        names = None if class_names is None else [each[-1] for each in read_class_names(class_names)]
        return (WebDataset if shards.suffix == TAR else Parquet)(shards, split, seed, names)
    name = fspath(named[0])
    if class_names is not None:
        raise ValueError(f"class_names must be None for {printable(name)}, which has names of its own.")
    if name == "photo_crops":
        if split is None:
            raise ValueError("split must be 'train' or 'val' for photo_crops; received None.")
        return photo_crops(split, seed=seed)
    if name.startswith(TFDS):
        from keras_robust.data.sources.tfds import DataSet

        return DataSet(name.removeprefix(TFDS), split, data_dir, download)
    if name and Path(name).is_dir():
        return ImageFolder(name, split, seed)
    if Path(name).is_file():
        if name.endswith(SUFFIXES):
            return TarArchive(name, split, seed)
        if name.endswith(".npz"):
            return ArrayFile(name, split, seed)
    what = "a file of another kind" if Path(name).is_file() else "not there"
    raise ValueError(
        "path_or_name must be 'photo_crops', 'tfds:NAME', or the path of a folder, a .tar (.tar.gz, .tar.xz), a "
        f".parquet or an .npz; received {name!r}, which is {what}."
    )
