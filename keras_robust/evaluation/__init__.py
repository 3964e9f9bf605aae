"""Accuracy under attack by threat model and resolution: measured, resumed, merged, compared, shown."""

from keras_robust.evaluation.assembly import merge
from keras_robust.evaluation.datasets import open_dataset
from keras_robust.evaluation.evaluate import evaluate
from keras_robust.evaluation.image_selection import read_class_names
from keras_robust.evaluation.reporting import pairs_table, table, write, write_comparison, write_figure
from keras_robust.evaluation.results import Picture, Report, Result
from keras_robust.evaluation.statistics import Paired, Proportion, wilson_interval
from keras_robust.precision import as_float32

__all__ = [
    "Paired",
    "Picture",
    "Proportion",
    "Report",
    "Result",
    "as_float32",
    "evaluate",
    "merge",
    "open_dataset",
    "pairs_table",
    "read_class_names",
    "table",
    "wilson_interval",
    "write",
    "write_comparison",
    "write_figure",
]
