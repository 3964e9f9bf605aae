"""What people read as Python is run, in miniature: snippets of README and site, notebooks, the example for keras.io."""

import re
from pathlib import Path

import pytest

from tests import miniature

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore"),  # of small nets, and of what the pages warn about themselves
]
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [path for folder in ("notebooks", "keras_io") for path in sorted((ROOT / "docs" / folder).glob("*.py"))]
PYTHON = re.compile(r"^```python(?: title=\"([^\n]*)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A block runs here unless its title begins so: the reason why it does not.
NOT_RUN = ("Needs", "Downloads", "Uploads", "Takes hours")


def snippets(page):
    """The blocks of a page that run, with the lines that they begin at."""
    text = page.read_text()
    return [
        (text[: match.start()].count("\n") + 1, match[2])
        for match in PYTHON.finditer(text)
        if not (match[1] or "").startswith(NOT_RUN)
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.stem)
def test_snippets_run(page, monkeypatch, tmp_path):
    miniature.prepare(monkeypatch, tmp_path)
    miniature.run(page.stem, snippets(page))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_run(path, monkeypatch, tmp_path):
    miniature.prepare(monkeypatch, tmp_path)
    miniature.run(path.stem, [(1, path.read_text())])


def test_all_are_found():
    assert sum(len(snippets(page)) for page in PAGES) > 30
    assert len(PROGRAMS) == 5


def test_only_numbers_become_smaller():
    text = "CLEAN_EPOCHS = 10\nfit(x, epochs=20, batch_size=64, rate=20)\nn_iter = 2"
    assert miniature.smaller(text) == "CLEAN_EPOCHS = 2\nfit(x, epochs=2, batch_size=16, rate=20)\nn_iter = 2"
