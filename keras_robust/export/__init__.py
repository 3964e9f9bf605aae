"""Export a model to serve it, and prove that what is served is what was evaluated."""

from keras_robust.export.artefact import Artefact, load
from keras_robust.export.exporter import ExportError, export
from keras_robust.export.formats import FORMATS
from keras_robust.export.reference import Settings
from keras_robust.export.verification import Check, Verification

__all__ = ["FORMATS", "Artefact", "Check", "ExportError", "Settings", "Verification", "export", "load"]
