import shutil
import subprocess
import sys

from keras_robust.export import runtimes


def test_the_file_needs_nothing_of_the_package(tmp_path):
    """Exported models are tried in a process that has neither Keras nor this package."""
    shutil.copy(runtimes.__file__, tmp_path / "alone.py")
    program = (
        "import sys, runpy\n"
        "sys.modules['keras'] = sys.modules['keras_robust'] = None\n"
        f"runpy.run_path({str(tmp_path / 'alone.py')!r})\n"
    )
    subprocess.run([sys.executable, "-I", "-c", program], check=True, timeout=60)
