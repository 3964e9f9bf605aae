"""Export under TensorFlow for the other backends: `python -m keras_robust.export FOLDER` (see `exporter`)."""

import json
import sys
from pathlib import Path

import keras

from keras_robust.export.exporter import ExportJob, make_artefact
from keras_robust.export.metadata import ExportMetadata
from keras_robust.export.reference import Reference, VerificationSettings
from keras_robust.threat import ThreatModel


def main(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    model = keras.models.load_model(folder / "model.keras", compile=False)
    settings = request["settings"] and VerificationSettings(**request["settings"])
    reference = Reference.load(folder) if settings else None
    job = ExportJob(ExportMetadata.from_json(request["metadata"]), ThreatModel(**request["threat"]), settings)
    result = make_artefact(model, Path(request["path"]), job, reference)
    if result is not None:
        (folder / "answer.json").write_text(result.json())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
