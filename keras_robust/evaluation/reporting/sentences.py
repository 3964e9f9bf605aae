"""Sentences of reports: the title, the headline that says what was found, and what a reader must know."""

from collections.abc import Mapping

from keras_robust.attacks.autoattack import NOT_COVERED
from keras_robust.attacks.versions import ESTIMATED
from keras_robust.evaluation.results import ALL, RADII_NOTE, Report
from keras_robust.evaluation.settings import OWN
from keras_robust.statistics import Estimate, Paired, Proportion

INTERVALS = (
    "In brackets 95 % intervals: Wilson's for a share of images. They say what another draw of images could give, not "
    "what a stronger attack would."
)
NO_PAIRED_TEST = "a robust accuracy is an estimate: no paired test"
OTHER_ATTACKS = "not the same attacks for {figures}: no paired test of these"


def title(reports: Mapping[str, Report]) -> str:
    return f"Robustness of {next(iter(reports))}" if len(reports) == 1 else f"Robustness of {len(reports)} models"


def headlines(reports: Mapping[str, Report]) -> list[str]:
    """What was found, in a sentence or two: of one model its accuracies, of several which is the most robust."""
    first, *others = reports.values()
    threat, resolution = first.threats[0], first.resolutions[0]
    if not others:
        result = first[threat, resolution]
        text = (
            f"Of {first.n_examples} images at {resolution} px, {100 * result.clean_accuracy:.1f} % are classified "
            f"correctly, and {_with_interval(result.robust)} still are under attack within {threat}"
        )
        if len(first.threats) > 1:
            union = _with_interval(first.union(resolution))
            text += f", {union} within any of the {len(first.threats)} threat models"
        return [f"{text}."]
    cells = {
        name: report[threat, resolution]
        for name, report in reports.items()
        if threat in report.threats and resolution in report.resolutions
    }
    ranked = sorted(cells, key=lambda name: -cells[name].robust.value)
    figures = ", ".join(f"{name} {_with_interval(cells[name].robust)}" for name in ranked)
    found = [f"Under attack within {threat} at {resolution} px, images still classified correctly: {figures}."]
    estimated = [name for name, report in reports.items() if report.is_estimated]
    if estimated:
        found.append(
            f"Those of {', '.join(estimated)} are estimates, and their intervals are of another kind than those of "
            "numbers: which of the models is the more robust one, this comparison does not say."
        )
    elif len(ranked) > 1 and reports[ranked[0]].saw_same_images(reports[ranked[1]]):
        if not reports[ranked[0]].met_same_attacks(reports[ranked[1]], [threat]):
            return [
                *found,
                f"{ranked[0]} and {ranked[1]} did not meet the same attacks: which of them is the more robust one, "
                "this comparison does not say.",
            ]
        paired = Paired.of(cells[ranked[1]].is_robust, cells[ranked[0]].is_robust)
        low, high = paired.interval
        found.append(
            f"On the same images, {ranked[0]} keeps {100 * paired.difference:.1f} points more right than {ranked[1]} "
            f"({100 * low:.1f} to {100 * high:.1f})."
            if low > 0
            else f"{ranked[0]} and {ranked[1]} do not differ by more than chance on these images."
        )
    return found


def attack(report: Report) -> str:
    """What a model met, as "AutoAttack standard"."""
    settings = report.settings
    if not settings.model.differentiable:
        return "black-box attacks"
    if settings.attack == OWN:
        return "own attacks"
    estimated = f", an estimate of {ESTIMATED[settings.attack]}" if report.is_estimated else ""
    return f"AutoAttack {settings.attack}{estimated}"


def subtitle(report: Report) -> str:
    settings = report.settings
    return f"{report.n_examples} images · {attack(report)} · seed {settings.seed} · {settings.backend}, float32"


def cautions(reports: Mapping[str, Report]) -> list[str]:
    """What must go with a table of accuracies, a line each: what "~" marks, and every warning."""
    warnings = [f"warning: {name}: {each}" for name, report in reports.items() for each in report.warnings]
    return [" ".join(each.split()) for each in (*(f"~ {sentence}" for sentence in estimates(reports)), *warnings)]


def marked(reports: Mapping[str, Report]) -> dict[str, Report]:
    """The reports under their names, to which those with estimates have "(estimate)" added where there are others."""
    several = len(reports) > 1
    return {
        f"{name} (estimate)" if several and report.is_estimated else name: report for name, report in reports.items()
    }


def estimates(reports: Mapping[str, Report]) -> list[str]:
    """What an estimate is, where there is one: a sentence or none."""
    which = [name for name, report in reports.items() if report.is_estimated]
    if not which:
        return []
    version = next(report.settings.attack for report in reports.values() if report.is_estimated)
    of = f" of {', '.join(which)}" if len(reports) > 1 else ""
    return [
        f"marks estimates{of}: cheap attacks met all images, all of AutoAttack {ESTIMATED[version]} a sample of what "
        "those left. The interval is for what it would give on these very images, with 95 % certainty; it is not "
        "for other images, and not a number to publish."
    ]


def notes(reports: Mapping[str, Report]) -> list[str]:
    """What a reader must know to read the figures, most of it of the first report."""
    report = next(iter(reports.values()))
    found = [*(f"~ {sentence}" for sentence in estimates(reports)), INTERVALS, RADII_NOTE, NOT_COVERED]
    if len(report.threats) > 1:
        found.insert(-2, f"Under {ALL}, an image counts if no attack under any of them broke it (union accuracy).")
    if report.settings.images.note:
        found.append(f"The images: {report.settings.images.note}.")
    if report.settings.images.imagenet and report.settings.images.list is None:
        found.append("The images are ImageNet's, but not the 5,000 of RobustBench's list: figures there may differ.")
    return found


def _with_interval(share: Proportion | Estimate) -> str:
    if isinstance(share, Estimate):
        return f"an estimated {share.percent.removeprefix('~')} ({share.ends.replace('-', ' to ')})"
    low, high = share.interval
    return f"{100 * share.value:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
