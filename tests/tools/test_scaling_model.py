import pytest

from tests import scripts

pytestmark = pytest.mark.once


@pytest.fixture
def tool():
    return scripts.load("tools/scaling_model.py")


def test_rows(tool):
    machine = tool.Machine(sustained=1e12, link=1e9, network=1e8, latency=1e-3, per_host=4)
    alone = tool.predict(1, 10, 1_000_000, 2e9, machine)
    assert (alone["sent"], alone["reduction"], alone["efficiency"]) == (0, 0, 1)
    assert alone["rate"] == pytest.approx(500)  # 2e9 operations per image at 1e12 per second
    # 4 MB of gradients: 2 * 3/4 of them within each of two hosts, 2 * 1/2 between; 3 doublings, there and back.
    several = tool.predict(8, 10, 1_000_000, 2e9, machine)
    assert several["sent"] == pytest.approx(6e6 + 4e6)
    assert several["reduction"] == pytest.approx(0.006 + 0.04 + 0.006)
    assert several["step"] == pytest.approx((0.052, 0.072))
    assert several["input"] == pytest.approx(4 * 10 / 0.072)


def test_table(tool, capsys):
    tool.main(["--model", "vit_tiny", "--global-batch", "12"])
    lines = capsys.readouterr().out.splitlines()
    assert "8 forward-equivalents" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["1", "2", "4"]
    with pytest.raises(SystemExit) as ended:
        tool.main(["--model", "vgg"])
    assert ended.value.code == 2
