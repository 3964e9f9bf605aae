"""Where JAX keeps its programs: of what was said, JAX's own words go first."""

import os
import sys
from types import SimpleNamespace

import pytest

from keras_robust.compilation_cache import FOLDER, SWITCH, keep_compiled


@pytest.fixture(autouse=True)
def _unset(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv(FOLDER, "")  # so that it is put back, whoever sets it
    monkeypatch.delenv(FOLDER)
    monkeypatch.delenv(SWITCH, raising=False)


@pytest.fixture
def jax(monkeypatch):
    """One that has been imported already."""
    config = SimpleNamespace(jax_compilation_cache_dir=None)
    config.update = lambda name, value: setattr(config, name, value)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config))
    return config


def environment():
    return os.environ.get(FOLDER)


def test_in_the_cache_folder_for_each_processor(jax, tmp_path):
    keep_compiled()
    folder = tmp_path / "keras_robust" / "compiled"
    assert jax.jax_compilation_cache_dir.startswith(str(folder))
    assert len(jax.jax_compilation_cache_dir) == len(str(folder)) + 9
    assert environment() == jax.jax_compilation_cache_dir


@pytest.mark.parametrize("chosen", ["off", "OFF", ""])
def test_switched_off(monkeypatch, jax, chosen):
    monkeypatch.setenv(SWITCH, chosen)
    keep_compiled()
    assert jax.jax_compilation_cache_dir is None
    assert environment() is None


def test_what_jax_was_told_stays(monkeypatch, jax):
    monkeypatch.setenv(SWITCH, "/elsewhere")
    jax.jax_compilation_cache_dir = "/of the program"
    keep_compiled()
    assert jax.jax_compilation_cache_dir == "/of the program"
    jax.jax_compilation_cache_dir = None
    monkeypatch.setenv(FOLDER, "/of the user")
    keep_compiled()
    assert (jax.jax_compilation_cache_dir, environment()) == (None, "/of the user")
    monkeypatch.delenv(FOLDER)
    keep_compiled()
    assert (jax.jax_compilation_cache_dir, environment()) == ("/elsewhere", "/elsewhere")
