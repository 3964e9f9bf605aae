"""RobustBench's way to evaluate on ImageNet: its 5,000 images, the form of its entries, its figures beside ours.

`robustbench_imagenet.txt` names the images, as RobustBench does (Croce et al. 2021, arXiv 2010.09670; MIT licence).
"""

from pathlib import Path
from typing import Any

from keras_robust import models
from keras_robust.attacks import AttackResult
from keras_robust.checks import check_choice
from keras_robust.evaluation import measures
from keras_robust.evaluation.corruptions import VERSIONS
from keras_robust.evaluation.results import Report
from keras_robust.threat import ThreatModel

IMAGE_LIST = Path(__file__).with_name("robustbench_imagenet.txt")
N_IMAGES = 5000
# What an entry says of a publication, and in which kind of value; what is not known is left empty.
ABOUT: dict[str, Any] = {
    "link": "",
    "name": "",
    "authors": "",
    "additional_data": False,
    "number_forward_passes": 1,
    "dataset": "imagenet",
    "venue": "",
    "architecture": "",
    "reported": "",
    "external": "",
    "footnote": "",
}


def cell(report: Report, name: str) -> AttackResult:
    """The cell of a report that a preset's published figures are of: its own threat model and resolution.

    Raises:
        ValueError: there is no such preset, or the report is of others, or its robust accuracy an estimate.
    """
    row = models.preset(name)
    threat, resolution = ThreatModel(*row.threat), row.preprocessing.resolution
    try:
        found = report[threat, resolution]
    except KeyError:
        raise ValueError(
            f"report must have a cell of {threat} at {resolution} pixels, as {name} was published"
        ) from None
    if report.is_estimated:
        raise ValueError(f"report must hold the robust accuracy itself; received an estimate, {found.robust}.")
    return found


def entry(report: Report, name: str | None = None, **about: Any) -> dict[str, Any]:
    """An evaluation in the form of RobustBench's entries (`model_info/DATASET/NORM/ID.json`).

    "unreliable" is true, and a footnote says why, where it is not RobustBench's evaluation (AutoAttack's standard
    version on its 5,000 images of ImageNet, prepared as there) or where the report warns of its figures. Accuracies are
    texts in percent; those under corruptions are there where all 75 versions of the images were read from files, as
    ImageNet-C has them, "external", a lower accuracy that others found, and "footnote" only with something to say.

    Args:
        report: of a preset at its own threat model and resolution; of any other model the first threat model with a
            radius at the first resolution counts.
        name: of a preset, or its id on RobustBench; if not given, the report's is looked for among them.
        about: what is not known here or known better: any of link, name, authors, additional_data,
            number_forward_passes, dataset, venue, architecture, reported, external, footnote.

    Raises:
        ValueError: there is no such preset or field, or the report is of other cells.

    Example:
        >>> report = kr.evaluation.Report.load("runs/mine")  # doctest: +SKIP
        >>> kr.evaluation.robustbench.entry(report, authors="A. Author", venue="Somewhere 2026")  # doctest: +SKIP
    """
    for field in about:
        check_choice("about", field, tuple(ABOUT))
    if name is None and report.name in models.preset_names():
        name = report.name
    images = report.settings.images
    own = images.list == IMAGE_LIST.name and report.n_examples == N_IMAGES
    doubts = [
        *([] if report.settings.attack == "standard" else [f"attack {report.settings.attack}"]),
        *([] if own else [f"{report.n_examples} images"]),
    ]
    if name is None:
        result = report[report.threats[0], report.resolutions[0]]
        if not result.threat.is_bounded:
            raise ValueError(f"report must have a threat model with a radius; its first is {result.threat}.")
        known: dict[str, Any] = {"dataset": "imagenet" if images.imagenet else ""}
    else:
        row, result = models.preset(name), cell(report, name)
        how = row.preprocessing
        usual = (images.crop_pct, images.interpolation) == (how.crop_pct, how.interpolation)
        doubts += [] if usual else ["preprocessing"]
        known = {"link": row.source, "architecture": row.architecture, "reported": f"{row.linf:.2f}"}
        known |= {} if row.external is None else {"external": f"{row.external:.2f}"}
    doubts += report.warnings
    found = {**ABOUT, **known, **about}
    ours = f"Evaluated by keras_robust: {'; '.join(doubts)}" if doubts else ""
    threat = result.threat
    whole = threat.norm == "Linf" and str(threat).endswith("/255")
    accuracies = {
        "eps": f"{round(255 * threat.eps)}/255" if whole else f"{threat.eps:g}",
        "clean_acc": f"{100 * result.clean_accuracy:.2f}",
        "reported": found.pop("reported"),
        "autoattack_acc": f"{100 * result.robust_accuracy:.2f}",
    }
    for image_set in report.image_sets:
        published = image_set.settings.files_sha256 is not None and set(VERSIONS) <= set(image_set.predictions)
        if image_set.is_corrupted and published and image_set.resolution == result.resolution:
            figures = measures.corruptions(report, image_set)
            accuracies["corruptions_acc"] = f"{100 * figures['mean accuracy'].mean():.2f}"
            if "mCE" in figures:
                accuracies["corruptions_mce"] = f"{100 * figures['mCE'].mean():.2f}"
    rest = {"external": found.pop("external"), "footnote": "; ".join(filter(None, (found.pop("footnote"), ours)))}
    return {**found, **accuracies, "unreliable": bool(doubts), **{key: text for key, text in rest.items() if text}}


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
