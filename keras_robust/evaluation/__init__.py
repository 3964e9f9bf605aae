"""Accuracy under attack by threat model and resolution: measured, resumed, merged, compared, shown."""

from keras_robust.attacks import AttackResult
from keras_robust.data.class_names import read_class_names
from keras_robust.evaluation import robustbench
from keras_robust.evaluation.evaluate import evaluate
from keras_robust.evaluation.image_selection import open_dataset
from keras_robust.evaluation.merge import merge
from keras_robust.evaluation.reporting import (
    pairs_table,
    render,
    sections,
    table,
    write,
    write_comparison,
    write_figure,
)
from keras_robust.evaluation.results import Picture, Report
from keras_robust.evaluation.settings import EvaluationSettings
from keras_robust.precision import as_float32
from keras_robust.statistics import Paired, Proportion, wilson_interval

__all__ = [
    "AttackResult",
    "EvaluationSettings",
    "Paired",
    "Picture",
    "Proportion",
    "Report",
    "as_float32",
    "evaluate",
    "merge",
    "open_dataset",
    "pairs_table",
    "read_class_names",
    "render",
    "sections",
    "robustbench",
    "table",
    "wilson_interval",
    "write",
    "write_comparison",
    "write_figure",
]
