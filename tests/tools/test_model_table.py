import csv
import io

import pytest

import keras_robust as kr
from tests import scripts


@pytest.fixture
def tool():
    return scripts.load("tools/model_table.py")


def test_markdown(tool, capsys):
    tool.main(["--models", "vit_small", "convnext_atto", "--resolutions", "224", "250"])
    assert capsys.readouterr().out.splitlines() == [
        "| model | parameters | G at 224 | G at 250 | published M | published G at 224 | clean | Linf | L2 | L1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| vit_small | 22,050,664 | 4.60 | - | 22.1 | 4.6 | 69.22 | 44.04 | 37.52 | 15.12 |",
        "| convnext_atto | 3,695,520 | 0.55 | 0.63 | - | - | - | - | - | - |",
    ]


def test_csv(tool, capsys):
    tool.main(["--models", "resnet50", "--format", "csv"])
    header, line = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[:3] == ["model", "parameters", "G at 224"]
    assert line == ["resnet50", "25557032", "4.09", "25.0", "4.1", "65.88", "33.18", "18.88", "3.82"]


def test_the_best_of_several_checkpoints_counts(tool):
    assert kr.models.table(["convnext_base"]).rows[0][-4:] == ("76.02", "55.82", "44.68", "21.23")


def test_table_in_a_notebook():
    table = kr.models.table(["vit_tiny"], (224, 250))
    assert repr(table).splitlines()[1].split()[:4] == ["vit_tiny", "5,717,416", "1.25", "-"]
    assert "<td>5,717,416</td>" in table._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "vit_smal"], "received 'vit_smal'. Did you mean 'vit_small'"),
        (["--resolutions", "224", "0"], "--resolutions must be positive; received [224, 0]"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message, tool, capsys):
    assert tool.main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
