"""Datasets by name or path, as an evaluation wants them: the images held out, or all there are."""

from os import PathLike

from keras_robust.data import Source, source

HELD_OUT = ("val", "test")


def open_dataset(
    dataset: Source | str | PathLike, split: str | None = None, data_dir: str | PathLike | None = None
) -> Source:
    """A source of images from what a user may name.

    Args:
        dataset: a `Source`, which is returned, or what `keras_robust.data.source` takes: "photo_crops", a folder or
            archive of class folders, an `.npz` file, "tfds:NAME".
        split: "train", "val" or "test". If not given, the images held out ("val", or else "test") where the dataset
            has splits, and all images where it has none.
        data_dir: of "tfds:" data sets.

    Raises:
        ValueError: there is no such dataset, or it is not as described.
    """
    if isinstance(dataset, Source):
        return dataset
    if split is not None:
        return source(dataset, split, data_dir=data_dir)
    try:
        whole = source(dataset, None, data_dir=data_dir)
    except ValueError:  # it may have splits, and no whole
        for each in HELD_OUT[:-1]:
            try:
                return source(dataset, each, data_dir=data_dir)
            except ValueError:
                pass
        return source(dataset, HELD_OUT[-1], data_dir=data_dir)
    own = {"train", *HELD_OUT} & set(whole.class_names)
    # A class "train" beside others may well be one of railway trains.
    if own == set(whole.class_names) or len(own) > 1:
        return source(dataset, next((each for each in HELD_OUT if each in own), "train"), data_dir=data_dir)
    return whole
