import numpy as np
import pytest

from tests.export.samples import small_model, toy_model


@pytest.fixture(scope="session")
def convnext():
    return small_model("convnext_atto_convstem")


@pytest.fixture(scope="session")
def vit():
    return small_model("vit_tiny_convstem")


@pytest.fixture
def toy():
    return toy_model()


@pytest.fixture
def images():
    """Three images (3, 48, 32, 3), uint8."""
    return np.random.default_rng(0).integers(0, 256, (3, 48, 32, 3), np.uint8)
