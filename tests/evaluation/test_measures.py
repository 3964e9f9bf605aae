"""What is left of attacks in 8 bits, image by image."""

import numpy as np
import pytest

import keras_robust as kr
from keras_robust.attacks import AttackResult
from keras_robust.evaluation import measures

pytestmark = pytest.mark.once

LABEL = np.zeros(5, np.int32)


def cell(eps):
    """Five images of class 0: wrong without attack, broken first by FMN (two) and by DDN, and never."""
    stages, at = ("clean", "fmn", "ddn"), np.array([0, 1, 1, 2, 3], np.int16)
    answer, rounded = (at < 3).astype(np.int32), np.array([1, 0, 1, 1, 0], np.int32)
    spent = {name: np.ones(5, np.int32) for name in stages[1:]}
    norm = np.array([0.0, 0.1, 0.2, 0.3, 0.0])
    threat = kr.ThreatModel("L2", eps)
    return AttackResult(threat, 8, stages, at, answer * 0, answer, norm, spent, {}, rounded_prediction=rounded)


def shares(found):
    return {name: (share.n, share.value) for name, share in found.items()}


def test_survivors_of_each_attack():
    assert shares(measures.survivors(cell(0.5), LABEL)) == {"fmn": (2, 0.5), "ddn": (1, 1.0)}
    np.testing.assert_array_equal(measures.right_in_8_bits(cell(0.5), LABEL), [0, 1, 0, 0, 1])


def test_without_a_bound_they_are_those_of_all_attacks():
    """The nearest image is kept there, whichever attack found it."""
    found = measures.survivors(cell(None), LABEL)
    assert shares(found) == {"all attacks": (3, pytest.approx(2 / 3))}
