"""Export a model to serve it, and prove that what is served is what was evaluated."""

from keras_robust.export.exporter import ExportError, export
from keras_robust.export.formats import FORMATS, Format, format_of
from keras_robust.export.loading import load_model
from keras_robust.export.metadata import ExportMetadata
from keras_robust.export.reference import VerificationSettings
from keras_robust.export.runtimes import Artefact, load_artefact
from keras_robust.export.verification import Check, Verification

__all__ = [
    "FORMATS",
    "Artefact",
    "Check",
    "ExportError",
    "ExportMetadata",
    "Format",
    "Verification",
    "VerificationSettings",
    "export",
    "format_of",
    "load_artefact",
    "load_model",
]
