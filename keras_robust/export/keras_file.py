"""Keras' own format: what training and evaluation here read. It needs Keras and this package's layers to load."""

import zipfile

from keras_robust.export import model_card
from keras_robust.export.artefact import ZIP_FOLDER


def write(model, path, metadata, dtype="float32"):
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in model_card.documents(metadata).items():
            archive.writestr(ZIP_FOLDER + name, text)
