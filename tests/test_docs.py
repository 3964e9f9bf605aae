"""The site's pages against the package: commands are parsed by the parsers, names and arguments are looked up."""

import ast
import functools
import importlib
import inspect
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import keras_robust as kr
from keras_robust import cli
from keras_robust.cli import load_test, train

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What comes before a command on its line, and what the shell puts in its place.
BEFORE = re.compile(r"^(\w+=\S+ +)*(srun \S+ )?")
SHELL = (("$SLURM_ARRAY_TASK_ID", "1"), ("$PWD", "."))


def blocks(page, language):
    return [body for found, body in FENCE.findall(page.read_text()) if found == language]


def commands(page, beginning):
    """The commands of a page that begin so, as lists of words."""
    found = []
    for body in blocks(page, "bash"):
        for line in re.sub(r"\\\n\s*", " ", body).splitlines():
            for name, value in SHELL:
                line = line.replace(name, value)
            line = BEFORE.sub("", line.strip())
            if line.startswith(beginning):
                words = shlex.split(line, comments=True)
                found.append(words[: words.index(">")] if ">" in words else words)
    return found


def of_pages(find):
    return [pytest.param(item, id=f"{page.stem}-{i}") for page in PAGES for i, item in enumerate(find(page))]


@pytest.fixture
def runs_nothing(monkeypatch):
    """Has the commands end when their arguments are understood; training chooses its recipe before that."""
    modules = [importlib.import_module(f"keras_robust.cli.{module}") for module, _ in cli.COMMANDS.values()]
    for module in modules:
        if module is not train and hasattr(module, "run"):
            monkeypatch.setattr(module, "run", lambda *arguments: 0)
    monkeypatch.setattr(train, "_train", lambda parser, recipe, options: train._chosen(recipe, options) and 0)
    monkeypatch.setattr(train, "_imagenet_table", lambda: "")
    monkeypatch.setattr(load_test, "Client", Refuses)


class Refuses:
    """A client of a server that is not there."""

    def __init__(self, address, model):
        self.close = lambda: None

    def predict_files(self, files):
        raise OSError("there is no server")


@pytest.mark.parametrize("words", of_pages(lambda page: commands(page, "keras-robust ")))
def test_commands_are_understood(words, runs_nothing, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(b"a photo")
    try:
        status = cli.main(words[1:])
    except SystemExit as end:  # --help
        status = end.code
    assert status == (1 if words[1] == "load-test" else 0)


@pytest.mark.parametrize("words", of_pages(lambda page: commands(page, ("python recipes/", "python tools/"))))
def test_scripts_understand_their_options(words, runs_nothing, monkeypatch):
    """Recipes choose their settings; of other scripts the options are looked up in the help."""
    script = ROOT / words[1]
    if "keras_robust.cli.train import" in script.read_text():
        monkeypatch.setattr(sys, "argv", words[1:])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(script), run_name="__main__")
        assert not end.value.code
    else:
        options = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        assert options <= set(re.findall(r"--[\w-]+", help_of(words[1])))


@functools.cache
def help_of(script):
    return subprocess.run(
        [sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_commands_are_found():
    assert sum(len(commands(page, "keras-robust ")) for page in PAGES) > 30
    assert all(commands(page, "keras-robust ") for page in PAGES if page.name in ("README.md", "own-data.md"))


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_extras_and_targets_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page in PAGES:
        text = page.read_text()
        named = {name for group in re.findall(r"'\.\[([\w,]+)\]'", text) for name in group.split(",")}
        assert named <= set(extras), page
        assert {words[1] for words in commands(page, "make ")} <= set(targets), page


def look_up(name):
    return functools.reduce(getattr, name.split(".")[1:], kr)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_names_and_arguments_exist(page):
    for body in blocks(page, "python"):
        for node in ast.walk(ast.parse(body)):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"kr(\.\w+)+", ast.unparse(node)):
                look_up(ast.unparse(node))
            if isinstance(node, ast.Call) and re.fullmatch(r"kr(\.\w+)+", ast.unparse(node.func)):
                keywords = {keyword.arg: None for keyword in node.keywords}
                inspect.signature(look_up(ast.unparse(node.func))).bind_partial(*node.args, **keywords)
