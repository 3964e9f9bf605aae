"""Merging of an evaluation whose shards ran by themselves."""

from collections.abc import Collection, Sequence
from os import PathLike
from pathlib import Path

from keras_robust.evaluation.assembly import assemble, assemble_set
from keras_robust.evaluation.reporting import write
from keras_robust.evaluation.result_store import (
    FOLDER,
    Grid,
    check_same,
    read_answers,
    read_batch,
    read_images,
    read_set_images,
    read_settings,
)
from keras_robust.evaluation.results import ImageSetResult, Report
from keras_robust.evaluation.settings import EvaluationSettings

MISSING = 10  # missing batches named


def merge(folders: Sequence[str | PathLike], out: str | PathLike) -> Report:
    """The report of an evaluation whose shards are done: the same, to the byte, as of one without shards.

    Args:
        folders: what the shards were given as `out`, the same for all or one each.
        out: where to write the report, see `keras_robust.evaluation.write`.

    Raises:
        ValueError: a folder holds no state or one of other settings, images or weights, or batches are missing.

    Example:
        >>> net = keras.Sequential(
        ...     [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
        ... )
        >>> threats, images = [kr.ThreatModel("Linf", 4 / 255)], kr.data.photo_crops("val")
        >>> for i in (1, 2):  # on two machines
        ...     part = kr.evaluation.evaluate(
        ...         net, images, threats, [32], "short", 8, out="mine", batch_size=4, shard=(i, 2), verbose=False
        ...     )
        >>> report = kr.evaluation.merge(["mine"], "mine")
    """
    if isinstance(folders, (str, PathLike)) or not folders:
        raise ValueError(f"folders must be a sequence of at least one; received {folders!r}.")
    stores = [Path(folder) / FOLDER for folder in folders]
    settings = read_settings(stores[0])
    for store in stores[1:]:
        check_same(
            settings.to_json(), read_settings(store).to_json(), f"{stores[0]} and {store} are of different evaluations"
        )
    grid, found = Grid.of(settings), {}
    for task in grid.batches:
        for store in stores:
            batch = read_batch(store, *task)
            if batch is not None and batch.is_complete(grid):
                found[task] = batch
    _check_all(grid.batches, found)
    report = assemble(settings, read_images(stores[0]), found, _image_sets(settings, grid, stores))
    write(report, out)
    return report


def _image_sets(settings: EvaluationSettings, grid: Grid, stores: Sequence[Path]) -> list[ImageSetResult]:
    """The results of the images that met no attack."""
    results = []
    for image_set in settings.image_sets:
        tasks, found = grid.of_set(image_set).batches, {}
        for task in tasks:
            for store in stores:
                answers = read_answers(store, image_set.name, *task)
                if set(image_set.versions) <= set(answers):
                    found[task] = answers
        _check_all(tasks, found, f"{image_set.name} ")
        results += assemble_set(settings, image_set, read_set_images(stores[0], image_set.name), found)
    return results


def _check_all(tasks: Collection[tuple[int, int]], done: Collection[tuple[int, int]], what: str = "") -> None:
    missing = [f"{what}{resolution} px batch {batch}" for resolution, batch in tasks if (resolution, batch) not in done]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(tasks)} batches are not done ({', '.join(missing[:MISSING])}): run the "
            "shards that are missing, or those that were stopped, again."
        )
