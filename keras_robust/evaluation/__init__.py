"""Accuracy under attack by threat model and resolution, and how to show it."""

from keras_robust.evaluation.report import Gallery, figure, table, write_json
from keras_robust.evaluation.robustness import Report, Result, evaluate, wilson_interval
from keras_robust.precision import as_float32

__all__ = [
    "Gallery",
    "Report",
    "Result",
    "as_float32",
    "evaluate",
    "figure",
    "table",
    "wilson_interval",
    "write_json",
]
