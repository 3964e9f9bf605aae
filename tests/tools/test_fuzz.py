"""The campaigns of odd inputs: that they tell what is fine from what is not, planted here."""

import json
import random

import pytest

from keras_robust.weights.loading import MisfitError
from tests import scripts

pytestmark = pytest.mark.once


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(scripts.ROOT / "tools")
    return scripts.load


def test_a_tally(load, tmp_path, capsys):
    tally = load("tools/campaign.py").Tally(("refused", "read"))
    assert tally.add("png", 0, "refused", "")
    assert not tally.add("png", 1, "foreign", "KeyError")
    assert tally.add("gif", 0, "read", "")
    assert tally.finish(tmp_path / "found.json", seed=3) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["counts"] == {"png": {"refused": 1, "foreign": 1}, "gif": {"read": 1}}
    assert (found["seed"], found["bad"]) == (3, [["png", 1, "foreign", "KeyError"]])
    assert "in all {'refused': 1, 'foreign': 1, 'read': 1}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        ("refused", lambda path: ValueError(f"{path} is damaged")),
        ("refused", lambda path: MisfitError(f"{path} does not fit", {})),
        ("foreign", lambda path: UnicodeError(f"{path} is damaged")),
        ("nameless", lambda path: ValueError("it is damaged")),
        ("foreign", lambda path: KeyError("header")),
        ("nonsense", lambda path: None),
    ],
)
def test_outcomes_of_files(load, tmp_path, outcome, error):
    tool = load("tools/fuzz_files.py")

    def read(path):
        if (planted := error(path)) is not None:
            raise planted
        return False

    tool.FORMATS["planted"] = tool.Format("planted.bin", lambda path: None, read)
    assert tool.run_case("planted", 0, 0, tmp_path, b"whole")[0] == outcome


def test_damage_is_a_function_of_the_draw(load):
    tool, whole = load("tools/fuzz_files.py"), bytes(range(256)) * 8
    found = [tool.damaged(whole, random.Random(number)) for number in range(50)]
    assert found == [tool.damaged(whole, random.Random(number)) for number in range(50)]
    assert sum(each != whole for each in found) > 45


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        ("refused", ValueError("step must be an integer")),
        ("nameless", ValueError("it must be an integer")),
        ("foreign", TypeError("not an integer")),
        ("done", None),
    ],
)
def test_outcomes_of_arguments(load, monkeypatch, outcome, error):
    tool = load("tools/fuzz_arguments.py")

    def call(step):
        if error is not None:
            raise error

    monkeypatch.setattr(tool, "TARGETS", {"planted": tool.Target(call, {"step": 1})})
    assert tool.run_case(0, 0)[0] == outcome


def test_bodies_and_answers(load):
    tool = load("tools/fuzz_requests.py")
    bodies = [tool.body_of(random.Random(number), b"a file") for number in range(50)]
    assert bodies == [tool.body_of(random.Random(number), b"a file") for number in range(50)]
    assert tool.is_sense({"predictions": [{"probabilities": [0.25, 0.75]}]})
    assert not tool.is_sense({"predictions": [{"probabilities": [0.25, 0.7]}]})
    assert not tool.is_sense([])
