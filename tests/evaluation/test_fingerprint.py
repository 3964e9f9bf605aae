import numpy as np

from keras_robust.evaluation.fingerprint import fingerprint
from tests.evaluation.problem import linear_model


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
