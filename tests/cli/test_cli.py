"""The command line as a whole: help that needs no framework, and errors in the user's words."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_robust.cli import COMMANDS, main
from keras_robust.cli.command import CommandParser, run

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[2]
SCRIPTS = [path for folder in ("recipes", "tools") for path in sorted((ROOT / folder).glob("*.py"))]
OF_THE_COMMANDS = [path for path in SCRIPTS if "keras_robust.cli" in path.read_text()]
HELP = """
import sys
try:
    {call}
except SystemExit as exit:
    assert exit.code in (0, None), exit.code
heavy = [name for name in ("keras", "numpy", "tensorflow", "jax", "torch") if name in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize("command", [None, *COMMANDS, "evaluate merge", "evaluate compare"])
def test_help_imports_no_framework(command):
    call = f"from keras_robust.cli import main; sys.exit(main({[*(command or '').split(), '--help']!r}))"
    done = subprocess.run([sys.executable, "-c", HELP.format(call=call)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: keras-robust {command or 'COMMAND'}")
    assert done.stderr == ""


@pytest.mark.parametrize("path", OF_THE_COMMANDS, ids=lambda path: path.name)
def test_help_of_scripts_imports_no_framework(path):
    call = f"import runpy; sys.argv = [{str(path)!r}, '--help']; runpy.run_path({str(path)!r}, run_name='__main__')"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    command = [sys.executable, "-c", HELP.format(call=call)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_module_and_version():
    command = [sys.executable, "-m", "keras_robust", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("keras-robust 0.")


def test_unknown_command(capsys):
    assert main(["evaluat"]) == 2
    assert "received 'evaluat'. Did you mean 'evaluate'?" in capsys.readouterr().err
    assert main([]) == 2


def test_unknown_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--model", "m", "--data", "d", "--out", "o", "--treats", "Linf:1"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error == "keras-robust evaluate: unrecognized arguments: --treats Linf:1 Did you mean '--threats'?\n"


@pytest.mark.parametrize(
    ("raised", "status", "shown"),
    [
        (ValueError("n_examples must be an integer >= 1; received 0."), 2, "--n-examples must be an integer >= 1"),
        (ValueError("class_names must be one per output."), 2, "--classes must be one per output."),
        (ValueError("the dataset has 2 classes"), 2, "the dataset has 2 classes"),
        (FileNotFoundError(2, "No such file or directory", "a.keras"), 2, "No such file or directory: 'a.keras'"),
        (ImportError("serving needs uvicorn:\n pip install"), 2, "serving needs uvicorn: pip install"),
        (KeyboardInterrupt(), 130, "interrupted; go on"),
    ],
)
def test_errors_are_one_line_in_the_users_words(raised, status, shown, capsys):
    parser = CommandParser("try", "")
    parser.add_argument("--n-examples", "-n")

    def fail(options):
        raise raised

    assert run(parser, fail, parser.parse_args([]), {"class_names": "--classes"}, "; go on") == status
    error = capsys.readouterr().err
    assert shown in error
    assert error.strip().startswith("keras-robust try: ")
    assert error.strip().count("\n") == 0


def test_a_package_that_is_missing_is_named_with_its_installation(capsys):
    parser = CommandParser("try", "")

    def needs(options):
        raise ModuleNotFoundError("No module named 'safetensors'", name="safetensors")

    assert run(parser, needs, parser.parse_args([])) == 2
    assert capsys.readouterr().err == "keras-robust try: No module named 'safetensors': pip install safetensors\n"
