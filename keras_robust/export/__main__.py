"""What the JAX and PyTorch backends run under TensorFlow: `python -m keras_robust.export FOLDER` (see `exporting`)."""

import json
import sys
from pathlib import Path

import keras

from keras_robust.export.exporter import make_artefact
from keras_robust.export.reference import Reference, Settings
from keras_robust.threat import ThreatModel


def main(folder):
    folder = Path(folder)
    request = json.loads((folder / "request.json").read_text())
    model = keras.models.load_model(folder / "model.keras", compile=False)
    settings = request["settings"] and Settings(**request["settings"])
    reference = Reference.load(folder) if settings else None
    threat = ThreatModel(*request["threat"])
    result = make_artefact(
        model, Path(request["path"]), request["format"], request["metadata"], threat, settings, reference
    )
    if result is not None:
        (folder / "answer.json").write_text(result.json())


if __name__ == "__main__":
    main(sys.argv[1])
