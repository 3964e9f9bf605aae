"""The active backend keeps the protocol, by the names and the parameters of its functions."""

import inspect

import keras_robust as kr
from keras_robust import backend
from keras_robust.backend.protocol import HOOKS, AdversarialTrainer, Autodiff


def _methods(protocol):
    return {name: value for name, value in vars(protocol).items() if inspect.isfunction(value) and name != "__init__"}


def test_autodiff_offers_what_the_protocol_says():
    assert isinstance(backend.COMPILES_EACH_SHAPE, bool)
    for name, function in _methods(Autodiff).items():
        if name.startswith("_"):
            continue
        theirs = list(inspect.signature(getattr(backend.active, name)).parameters)
        assert theirs == list(inspect.signature(function).parameters)[1:], name


def test_the_model_has_the_hooks_that_the_trainer_calls():
    assert {name for name in _methods(AdversarialTrainer) if name in HOOKS} == set(HOOKS)
    for name in HOOKS:
        ours = list(inspect.signature(getattr(kr.AdversarialModel, name)).parameters)
        assert ours == list(inspect.signature(getattr(AdversarialTrainer, name)).parameters), name
