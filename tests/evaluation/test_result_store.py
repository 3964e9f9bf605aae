import json
from dataclasses import replace

import numpy as np
import pytest

from keras_robust.evaluation.result_store import BatchResult, Grid, ResultStore
from keras_robust.evaluation.settings import EvaluationSettings
from tests.evaluation.samples import SETTINGS

pytestmark = pytest.mark.once


def batch():
    """Two images under two threat models, of which the first has met two attacks."""
    found = BatchResult.of(np.array([3, -1], np.int32), 2)
    found.warnings = ("Zero gradients: ...",)
    cell = found.cells[0]
    for name in ("apgd-ce", "square"):
        cell.misclassified[name] = np.array([name == "square", False])
        cell.evaluations[name], cell.unconfirmed[name], cell.seconds[name] = np.array([7, 0], np.int32), 1, 0.25
    cell.pictures[0] = np.zeros((3, 4, 4, 3), np.uint8)
    cell.perturbation_norm[0], cell.adversarial_prediction[0] = 0.5, 9
    return found


def test_batches_are_read_back(tmp_path):
    for store in (ResultStore(SETTINGS, tmp_path), ResultStore(SETTINGS, None)):
        assert store.read(32, 1) is None
        store.write(32, 1, batch())
        assert store.read(32, 0) is None
        found = store.read(32, 1)
        assert found.arrays().keys() == batch().arrays().keys()
        for name, array in batch().arrays().items():
            np.testing.assert_array_equal(found.arrays()[name], array)
            assert found.arrays()[name].dtype == array.dtype
        assert found.warnings == ("Zero gradients: ...",)
        assert (found.cells[0].unconfirmed, found.cells[0].seconds["square"]) == ({"apgd-ce": 1, "square": 1}, 0.25)
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["32px-00001.npz", "settings.json"]


def test_a_batch_is_complete_when_it_has_met_all_attacks():
    grid = Grid((), (32,), (("apgd-ce", "square"), ()), 2, 2)
    assert batch().is_complete(grid)
    assert not batch().is_complete(replace(grid, attacks=(("apgd-ce", "square"), ("square",))))
    assert not BatchResult.of(np.zeros(2, np.int32), 2).is_complete(grid)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "seed is 1 here and 0 there"),
        ({"model": replace(SETTINGS.model, sha256="3" * 64)}, r"model\.sha256 is"),
        ({"threats": (replace(SETTINGS.threats[0], eps=0.2),)}, r"threats is .*0\.2.* here and .*0\.1"),
        ({"surrogate_sha256": "4"}, 'surrogate_sha256 is "4" here and null there'),
    ],
)
def test_state_of_other_settings_is_refused(tmp_path, changes, message):
    ResultStore(SETTINGS, tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        ResultStore(replace(SETTINGS, **changes), tmp_path)
    assert "Take another folder" in str(error.value)


def test_settings_that_went_through_a_file_are_the_same(tmp_path):
    assert EvaluationSettings.from_json(json.loads(json.dumps(SETTINGS.to_json()))) == SETTINGS
    ResultStore(SETTINGS, tmp_path)
    ResultStore(SETTINGS, tmp_path)


def test_damaged_files_are_named(tmp_path):
    store = ResultStore(SETTINGS, tmp_path)
    (tmp_path / "state" / "32px-00000.npz").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match=r"32px-00000\.npz is damaged"):
        store.read(32, 0)
    np.savez(tmp_path / "state" / "32px-00001.npz", other=np.zeros(2))
    with pytest.raises(ValueError, match=r"32px-00001\.npz is damaged"):
        store.read(32, 1)
    for text in ("{", "[]", '{"seed": 0}'):
        (tmp_path / "state" / "settings.json").write_text(text)
        with pytest.raises(ValueError, match=r"settings\.json is not readable"):
            ResultStore(SETTINGS, tmp_path)
