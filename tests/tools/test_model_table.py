import csv
import importlib.util
import io
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "model_table.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("model_table", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_markdown(tool, capsys):
    tool.main(["--models", "vit_small", "convnext_atto", "--resolutions", "224", "250"])
    assert capsys.readouterr().out.splitlines() == [
        "| model | parameters | G at 224 | G at 250 | published M | published G at 224 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| vit_small | 22,050,664 | 4.60 | - | 22.1 | 4.6 |",
        "| convnext_atto | 3,695,520 | 0.55 | 0.63 | - | - |",
    ]


def test_csv(tool, capsys):
    tool.main(["--models", "resnet50", "--format", "csv"])
    header, line = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[:3] == ["model", "parameters", "G at 224"]
    assert line == ["resnet50", "25557032", "4.09", "25.0", "4.1"]


def test_unknown_model(tool):
    with pytest.raises(ValueError, match=r"unknown model name 'vit_smal'.*vit_small"):
        tool.main(["--models", "vit_smal"])
