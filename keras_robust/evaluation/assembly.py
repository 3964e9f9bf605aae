"""From the batches of an evaluation, of one machine or of many, to its report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from keras_robust.evaluation.reporting.documents import write
from keras_robust.evaluation.result_store import FOLDER, check_same, read_batch, read_images, read_settings
from keras_robust.evaluation.results import Picture, Report, Result
from keras_robust.threat import ThreatModel

GALLERY = 5  # pictures per threat model and resolution
MISSING = 10  # missing batches named


@dataclass(frozen=True)
class Plan:
    """The grid, and its batches.

    Attributes:
        attacks: names of the attacks of each threat model, in the order run.
    """

    threats: Sequence[ThreatModel]
    resolutions: Sequence[int]
    attacks: Sequence[tuple[str, ...]]
    n_examples: int
    batch_size: int

    @classmethod
    def of(cls, settings: Mapping) -> "Plan":
        return cls(
            [ThreatModel(threat["norm"], threat["eps"]) for threat in settings["threats"]],
            settings["resolutions"],
            [tuple(threat["attacks"]) for threat in settings["threats"]],
            settings["images"]["n_examples"],
            settings["batch_size"],
        )

    @property
    def n_batches(self):
        return -(-self.n_examples // self.batch_size)

    @property
    def batches(self):
        """All (resolution, batch number)."""
        return [(resolution, batch) for resolution in self.resolutions for batch in range(self.n_batches)]

    def where(self, batch):
        return slice(batch * self.batch_size, min(self.n_examples, (batch + 1) * self.batch_size))


def is_complete(plan: Plan, arrays: Mapping) -> bool:
    """Whether a batch has met all its attacks."""
    return all(f"{place}/{name}/broken" in arrays for place, names in enumerate(plan.attacks) for name in names)


def assemble(
    plan: Plan, settings: Mapping, images: Mapping[str, np.ndarray], read: Callable[[int, int], Mapping]
) -> Report:
    """The report of a finished evaluation; `read(resolution, batch)` gives the arrays of a batch."""
    results, gallery, doubts = [], [], []
    labels = images["label"]
    for resolution in plan.resolutions:
        batches = [read(resolution, batch) for batch in range(plan.n_batches)]
        doubts += [str(doubt) for doubt in batches[0].get("doubts", ())]

        def joined(key, batches=batches):
            return np.concatenate([batch[key] for batch in batches])

        prediction = joined("prediction")
        for place, (threat, names) in enumerate(zip(plan.threats, plan.attacks)):
            broken_by = np.full(plan.n_examples, 1 + len(names), np.int16)
            for stage in range(len(names), 0, -1):
                broken_by[joined(f"{place}/{names[stage - 1]}/broken")] = stage
            broken_by[prediction != labels] = 0
            answers = joined(f"{place}/adversarial_prediction")
            result = Result(
                threat,
                resolution,
                ("clean", *names),
                broken_by,
                prediction,
                answers,
                joined(f"{place}/size"),
                {name: joined(f"{place}/{name}/evaluations") for name in names},
                {name: sum(int(batch[f"{place}/{name}/unconfirmed"]) for batch in batches) for name in names},
            )
            results.append(result)
            prefix = f"{place}/picture/"
            for position in sorted(int(key.removeprefix(prefix)) for key in batches[0] if key.startswith(prefix)):
                seen = (int(array[position]) for array in (labels, prediction, answers))
                gallery.append(Picture(threat, resolution, batches[0][f"{prefix}{position}"], *seen))
    costs = {int(resolution): cost for resolution, cost in settings["model"]["multiply_adds"].items()}
    shown = {name: images[name] for name in ("index", "label", "digest", "name")}
    outputs, skipped = ([str(each) for each in images[name]] for name in ("outputs", "skipped"))
    return Report(settings, results, shown, outputs, skipped, doubts, costs, gallery)


def merge(folders: Sequence[str | PathLike], out: str | PathLike) -> Report:
    """The report of an evaluation whose shards are done: the same, to the byte, as of one without shards.

    Args:
        folders: what the shards were given as `out`, the same for all or one each.
        out: where to write `report.json`, its two `.npz` files, `report.md` and `report.html`.

    Raises:
        ValueError: a folder holds no state or one of other settings, images or weights, or batches are missing.

    Example:
        >>> for i in (1, 2):  # on two machines
        ...     kr.evaluation.evaluate(model, source, threats, [224], out="runs/mine", shard=(i, 2))
        >>> report = kr.evaluation.merge(["runs/mine"], "runs/mine")
    """
    if isinstance(folders, (str, PathLike)) or not folders:
        raise ValueError(f"folders must be a sequence of at least one; received {folders!r}.")
    states = [Path(folder) / FOLDER for folder in folders]
    settings = read_settings(states[0])
    for state in states[1:]:
        check_same(settings, read_settings(state), f"{states[0]} and {state} are of different evaluations")
    plan, found = Plan.of(settings), {}
    for task in plan.batches:
        for state in states:
            arrays = read_batch(state, *task)
            if is_complete(plan, arrays):
                found[task] = arrays
    missing = [
        f"{resolution} px batch {batch}" for resolution, batch in plan.batches if (resolution, batch) not in found
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(plan.batches)} batches are not done ({', '.join(missing[:MISSING])}): run the "
            "shards that are missing, or those that were stopped, again."
        )
    report = assemble(plan, settings, read_images(states[0]), lambda *task: found[task])
    write(report, out)
    return report
