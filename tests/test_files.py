import keras
import pytest

from keras_robust.files import write_text, written_aside

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="nothing in it depends on the backend")


def interrupted(path):
    with written_aside(path) as aside:
        assert aside.suffix == path.suffix
        aside.write_text("second")
        raise RuntimeError("power cut")


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "ä first")
    with pytest.raises(RuntimeError, match="power cut"):
        interrupted(path)
    assert path.read_text(encoding="utf-8") == "ä first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_nobody_wrote(tmp_path):
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []
