"""tools/timing.py, the harness of the benchmarks."""

import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once


@pytest.fixture
def timing(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    yield importlib.import_module("timing")
    for name in ("timing", "tests.tools.work"):
        sys.modules.pop(name, None)


@pytest.fixture
def work(timing):
    return importlib.import_module("tests.tools.work")


def test_times_and_ratios(timing, work):
    variants = {"long": work.long, "short": work.short, "with a loss": work.with_a_loss, "absent": work.absent}
    times, missing = timing.measure(variants, {"seconds": 0.1}, repeats=2)
    assert missing == {"absent": "it is not installed"}
    assert list(times) == ["long", "short", "with a loss"]
    assert max(times["with a loss"].seconds) < 100
    assert len(times["short"].seconds) == 2
    assert min(times["long"].seconds) >= 0.3
    assert max(times["short"].cpu_seconds) < 0.1
    assert times["short"].peak_memory > 1
    # Asleep for three times as long, or a little less when waking up takes its time.
    ratios = timing.ratios(times, [("long", "short"), ("short", "absent")])
    assert list(ratios) == ["long / short"]
    assert 1 < ratios["long / short"]["median"] <= 3.1
    assert "long / short" in timing.table(times, [("long", "short")])


def test_refusals_and_deaths_are_told(timing, work):
    with pytest.raises(ValueError, match=r"^seconds must be positive$"):
        timing.measure({"refusing": work.refusing}, {}, repeats=1)
    with pytest.raises(RuntimeError, match="the process of 'dying' died"):
        timing.measure({"dying": work.dying}, {}, repeats=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "invalid positive integer value: '0'"),
        (["--threads", "100000"], "100000 asked for"),
        (["--json", "/nowhere/at/all.json"], "there is no folder"),
        (["--model", "vit_tiny", "vit_small"], "several only with --forward"),
    ],
)
def test_bad_options_of_the_benchmark_are_one_line(arguments, message, timing, capsys):
    benchmark = importlib.import_module("benchmark")
    sys.modules.pop("benchmark")
    with pytest.raises(SystemExit) as stop:
        benchmark.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
