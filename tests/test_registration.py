import subprocess
import sys

import pytest

import keras_robust as kr

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "imports",
    [
        "import keras, keras_robust",
        "import keras_robust, keras",
        "import keras_robust as kr; kr.ThreatModel('Linf', 0.1); import keras",
        "import keras_robust.threat, keras",
    ],
)
def test_keras_loads_our_models_whatever_was_imported_first(imports, tmp_path):
    model = kr.models.create("convnext_atto_convstem", num_classes=2, input_size=32)
    model.save(tmp_path / "model.keras")
    program = f"{imports}; print(keras.saving.load_model(r'{tmp_path}/model.keras').name)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["convnext_atto_convstem"], done.stderr


def test_importing_the_package_imports_neither_keras_nor_a_framework():
    program = "import sys, keras_robust; print({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr
