import json

import numpy as np
import pytest

from keras_robust.evaluation.result_store import State, check_same, fingerprint
from tests.evaluation.problem import linear_model

SETTINGS = {"seed": 0, "model": {"name": "a", "sha256": "1" * 64}, "threats": [{"norm": "L2", "eps": 0.1}]}


def test_batches_are_read_back(tmp_path):
    for state in (State(SETTINGS, tmp_path), State(SETTINGS, None)):
        assert state.read(32, 1) == {}
        state.write(32, 1, {"0/square/broken": np.array([True, False])})
        np.testing.assert_array_equal(state.read(32, 1)["0/square/broken"], [True, False])
        assert state.read(32, 0) == {}
    np.testing.assert_array_equal(State(SETTINGS, tmp_path).read(32, 1)["0/square/broken"], [True, False])
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["32px-00001.npz", "settings.json"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed is 1 here and 0 there"),
        ({"model": {"name": "a", "sha256": "2" * 64}}, r"model\.sha256 is"),
        ({"threats": [{"norm": "L2", "eps": 0.2}]}, r"threats is .*0\.2.* here and .*0\.1"),
        ({"more": True}, "more is true here and null there"),
    ],
)
def test_state_of_other_settings_is_refused(tmp_path, changes, message):
    State(SETTINGS, tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        State({**SETTINGS, **changes}, tmp_path)
    assert "Take another folder" in str(error.value)


def test_settings_that_went_through_a_file_are_the_same():
    check_same({"a": (1, 0.1)}, json.loads(json.dumps({"a": (1, 0.1)})), "")


def test_damaged_files_are_named(tmp_path):
    state = State(SETTINGS, tmp_path)
    (tmp_path / "state" / "32px-00000.npz").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match=r"32px-00000\.npz is missing or damaged"):
        state.read(32, 0)
    (tmp_path / "state" / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json is not readable"):
        State(SETTINGS, tmp_path)


def test_fingerprint_is_of_the_weights():
    one, two = linear_model(), linear_model()
    assert fingerprint(one, [0]) == fingerprint(two, [1])
    kernel, bias = two.get_weights()
    two.set_weights([kernel, np.nextafter(bias, 1, dtype="float32")])
    assert fingerprint(one, [0]) != fingerprint(two, [0])


def test_fingerprint_of_a_callable_is_of_its_answers():
    assert (
        fingerprint(abs, np.array([0, 1])) == fingerprint(len, np.array([0, 1])) != fingerprint(abs, np.array([1, 1]))
    )
