"""Assembly of a report from the batches of a finished evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_robust.attacks import AttackResult
from keras_robust.attacks.result import CLEAN, first_misclassified_at
from keras_robust.attacks.sampling import Sample
from keras_robust.evaluation.result_store import BatchResult, Grid, Images
from keras_robust.evaluation.results import ImageSetResult, Picture, Report
from keras_robust.evaluation.settings import EvaluationSettings, ImageSetSettings

Answers = Mapping[tuple[int, int], Mapping[str, np.ndarray]]  # version -> answers, by (resolution, batch number)


def assemble(
    settings: EvaluationSettings,
    images: Images,
    batches: Mapping[tuple[int, int], BatchResult],
    image_sets: Sequence[ImageSetResult] = (),
) -> Report:
    """The report of a finished evaluation, from all its batches by (resolution, number)."""
    grid = Grid.of(settings)
    results: list[AttackResult] = []
    gallery: list[Picture] = []
    warnings: list[str] = []
    for resolution in grid.resolutions:
        parts = [batches[resolution, batch] for batch in range(grid.n_batches)]
        warnings += parts[0].warnings
        for place in range(len(grid.threats)):
            result = _joined(grid, place, resolution, images.label, parts, settings.propagations(grid.threats[place]))
            results.append(result)
            for position, picture in sorted(parts[0].cells[place].pictures.items()):
                seen = (images.label, result.prediction, result.adversarial_prediction)
                gallery.append(Picture(result.threat, resolution, picture, *(int(each[position]) for each in seen)))
    return Report(settings, results, images, warnings, gallery, image_sets)


def _joined(
    grid: Grid, place: int, resolution: int, labels: np.ndarray, parts: list[BatchResult], passes: dict[str, int]
) -> AttackResult:
    """The result of one cell, from its batches."""
    names, cells = grid.attacks[place], [part.cells[place] for part in parts]
    prediction = np.concatenate([part.prediction for part in parts])
    misclassified = [np.concatenate([cell.misclassified[name] for cell in cells]) for name in names]
    samples = [cell.sample for cell in cells if cell.sample is not None]
    extra: dict[str, Any] = {name: np.concatenate([cell.extra[name] for cell in cells]) for name in cells[0].extra}
    return AttackResult(
        grid.threats[place],
        resolution,
        (CLEAN, *names),
        first_misclassified_at(prediction == labels, misclassified),
        prediction,
        np.concatenate([cell.adversarial_prediction for cell in cells]),
        np.concatenate([cell.perturbation_norm for cell in cells]),
        {name: np.concatenate([cell.evaluations[name] for cell in cells]) for name in names},
        {name: sum(cell.unconfirmed[name] for cell in cells) for name in names},
        passes=passes,
        sample=Sample.concatenate(samples) if samples else None,
        **extra,
    )


def assemble_set(
    settings: EvaluationSettings, image_set: ImageSetSettings, images: Mapping[str, np.ndarray], answers: Answers
) -> list[ImageSetResult]:
    """The results of other images, one per resolution, from all their batches by (resolution, number)."""
    grid = Grid.of(settings).of_set(image_set)
    found = []
    for resolution in grid.resolutions:
        parts = [answers[resolution, batch] for batch in range(grid.n_batches)]
        predictions = {each: np.concatenate([part[each] for part in parts]) for each in image_set.versions}
        found.append(ImageSetResult(image_set, resolution, images["label"], images["digest"], predictions))
    return found
