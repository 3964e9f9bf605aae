import pytest

from keras_robust.models import registry

from .small import SMALL


@pytest.fixture
def small_models(monkeypatch):
    for name, row in SMALL.items():
        monkeypatch.setitem(registry.ARCHITECTURES, name, row)
