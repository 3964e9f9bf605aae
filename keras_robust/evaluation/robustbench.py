"""RobustBench's way to evaluate on ImageNet: its 5,000 images, the form of its entries, its figures beside ours.

`robustbench_imagenet.txt` names the images, as RobustBench does (Croce et al. 2021, arXiv 2010.09670; MIT licence).
"""

from pathlib import Path
from typing import Any

from keras_robust import models
from keras_robust.attacks import AttackResult
from keras_robust.evaluation.results import Report
from keras_robust.threat import ThreatModel

IMAGE_LIST = Path(__file__).with_name("robustbench_imagenet.txt")
N_IMAGES = 5000


def cell(report: Report, name: str) -> AttackResult:
    """The cell of a report that a preset's published figures are of: its own threat model and resolution.

    Raises:
        ValueError: there is no such preset, or the report is of others.
    """
    row = models.preset(name)
    threat, resolution = ThreatModel(*row.threat), row.preprocessing.resolution
    try:
        return report[threat, resolution]
    except KeyError:
        raise ValueError(
            f"report must have a cell of {threat} at {resolution} pixels, as {name} was published"
        ) from None


def entry(report: Report, name: str) -> dict[str, Any]:
    """An evaluation in the form of RobustBench's entries (`model_info/imagenet/Linf/ID.json`).

    "unreliable" is true, and a footnote says why, where it is not RobustBench's evaluation (AutoAttack's standard
    version on its 5,000 images, prepared as there) or where the report warns of its figures. Names and authors of the
    publication are left empty.

    Args:
        report: of the preset at its own threat model and resolution.
        name: of a preset, or its id on RobustBench.
    """
    row, result, images = models.preset(name), cell(report, name), report.settings.images
    how = row.preprocessing
    doubts = [
        *([] if report.settings.attack == "standard" else [f"attack {report.settings.attack}"]),
        *([] if images.list == IMAGE_LIST.name and result.n_examples == N_IMAGES else [f"{result.n_examples} images"]),
        *([] if (images.crop_pct, images.interpolation) == (how.crop_pct, how.interpolation) else ["preprocessing"]),
        *report.warnings,
    ]
    found: dict[str, Any] = {
        "link": row.source,
        "name": "",
        "authors": "",
        "additional_data": False,
        "number_forward_passes": 1,
        "dataset": "imagenet",
        "venue": "",
        "architecture": row.architecture,
        "eps": f"{round(255 * row.threat[1])}/255",
        "clean_acc": f"{100 * result.clean_accuracy:.2f}",
        "reported": f"{row.linf:.2f}",
        "autoattack_acc": f"{100 * result.robust_accuracy:.2f}",
        "unreliable": bool(doubts),
    }
    return {**found, "footnote": "Evaluated by keras_robust: " + "; ".join(doubts)} if doubts else found


def comparison(report: Report, name: str) -> str:
    """Our figures beside the published ones, in points of percent, with the 95 % interval of the difference.

    The interval is that of our figure (Wilson), as if the published one were exact: where both are of the same images,
    which no sampling separates, a difference within it still is one that the implementations make.
    """
    row, result = models.preset(name), cell(report, name)
    parts = []
    for what, share, published in (("clean", result.clean, row.clean), ("robust", result.robust, row.linf)):
        ours, (low, high) = 100 * share.value, (100 * end for end in share.interval)
        parts.append(
            f"{what} {ours:.2f} %, published {published:.2f}: {ours - published:+.2f} points "
            f"({low - published:+.2f} to {high - published:+.2f})"
        )
    caution = f". {row.caution}" if row.caution else ""
    return f"{name}, {result.threat}, {result.n_examples} images: {'; '.join(parts)}{caution}"
