import csv
import io
import math

import pytest

import keras_robust as kr
from tests import scripts

pytestmark = pytest.mark.once


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
    assert line == ["resnet50", "25557032", "4.09", "25.0", "4.1", "64.02", "34.96", "-", "-"]


def test_the_best_of_several_checkpoints_counts(tool):
    assert kr.models.table(["convnext_base"]).rows[0][-4:] == ("76.02", "55.82", "44.68", "21.23")


def test_published(tool, capsys):
    assert tool.main(["--published", "--max-parameters", "23", "--format", "csv"]) == 0
    header, *lines = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[:5] == ["preset", "RobustBench's id", "architecture", "M parameters", "px"]
    # The best first: figures of the publication, and 22.8 M by count.
    first = ["vit_small_convstem_300ep", "Singh2023Revisiting_ViT-S-ConvStem", "vit_small_convstem", "22.8", "224"]
    assert lines[0] == [*first, "72.56", "48.08", "4/255", "-", "50.4", "26.68", "5000", "MIT (RobustBench)", "gdrive"]
    assert all(float(line[3]) <= 23 for line in lines)
    assert [line[6] for line in lines] == sorted((line[6] for line in lines), key=float, reverse=True)


def test_published_board_is_whole_and_sorted():
    board = kr.models.published()
    assert len(board.rows) == len(kr.models.presets())
    radii = [row[7] for row in board.rows]
    assert radii == sorted(radii)  # figures at 8/255 after all at 4/255
    rows = [row for row in board.rows if row[7] == "4/255"]
    assert rows[0][0] == "vit_giant_patch14_wang2024"
    lowest = [min(float(row[6]), math.inf if row[8] == "-" else float(row[8])) for row in rows]  # AutoAttack's, others'
    assert lowest == sorted(lowest, reverse=True)
    assert lowest != [float(row[6]) for row in rows]
    note = (
        "swin_large_amini2024: AutoAttack overstates swin_large_meansparse: 62.12 % by AutoAttack at Linf 4/255, 58.92"
    )
    for text in (board.markdown(), repr(board), board._repr_html_()):
        assert note in text
        assert "mixednuts_bai2024: AutoAttack overstates" in text
    assert not kr.models.published(most_parameters=30).notes
    for by, column, way in (("clean", 5, -1), ("l2", 9, -1), ("parameters", 3, 1)):
        rows = [row for row in kr.models.published(sort=by).rows if row[7] == "4/255"]
        figures = [math.inf if row[column] == "-" else way * float(row[column]) for row in rows]
        assert figures == sorted(figures)
    with pytest.raises(ValueError, match="sort must be one of 'linf', 'clean'"):
        kr.models.published(sort="name")


def test_table_in_a_notebook():
    table = kr.models.table(["vit_tiny"], (224, 250))
    assert repr(table).splitlines()[1].split()[:4] == ["vit_tiny", "5,717,416", "1.25", "-"]
    assert "<td>5,717,416</td>" in table._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "vit_smal"], "received 'vit_smal'. Did you mean 'vit_small'"),
        (["--published", "--max-parameters", "-1"], "--max-parameters must be a finite number >= 0; received -1.0"),
        (["--resolutions", "224", "0"], "--resolutions must be positive; received [224, 0]"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message, tool, capsys):
    assert tool.main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--max-parameters", "6"], ["--sort", "clean"]])
def test_what_would_do_nothing_is_refused(arguments, tool, capsys):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2
    assert f"{arguments[0]} goes with --published alone" in capsys.readouterr().err
