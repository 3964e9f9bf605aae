"""Downloads from servers on loopback that answer as the real ones, and what goes wrong on the way."""

import hashlib
import io
import json
import random
import sys
import threading
import zipfile

import pytest

import keras_robust as kr
from keras_robust.weights import fetching

from .servers import CONFIRMATION, QUOTA, SIGN_IN, Answer, drive, serving, serving_hub

pytestmark = pytest.mark.once

pytest.importorskip("gdown")
pytest.importorskip("huggingface_hub")

ID = "1-FjtOF6LJ3-bf4VezsmWwncCxYSx-USP"
CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetching, "RETRIES", 0)
    return tmp_path / "home" / "keras_robust"


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def hub(monkeypatch):
    with serving_hub(monkeypatch) as hub:
        yield hub


def test_downloads_once_and_needs_no_server_afterwards(server, cache, capsys):
    server.answers["/w.pt"] = Answer(CONTENT)
    path = kr.weights.fetch(f"{server.url}/w.pt")
    assert path.read_bytes() == CONTENT
    assert (path.parent, path.suffix) == (cache, ".pt")
    assert f"downloading {server.url}/w.pt: 3.0 MB" in capsys.readouterr().err
    record = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert record == {"address": f"{server.url}/w.pt", "sha256": SHA256, "size": len(CONTENT)}
    assert sorted(file.name for file in cache.iterdir() if not file.name.endswith(".lock")) == [
        path.name,
        f"{path.name}.json",
    ]
    server.close()
    assert kr.weights.fetch(f"{server.url}/w.pt") == path
    assert len(server.requests) == 1


def test_files_of_one_name_from_several_addresses_are_several(server):
    for folder in "ab":
        server.answers[f"/{folder}/w.pt"] = Answer(folder.encode() * 100)
    paths = [kr.weights.fetch(f"{server.url}/{folder}/w.pt", verbose=False) for folder in "ab"]
    assert [path.read_bytes()[:1] for path in paths] == [b"a", b"b"]


def test_follows_redirects(server):
    server.answers["/old/w.pt"] = Answer(status=302, headers={"Location": "/new"})
    server.answers["/new"] = Answer(CONTENT)
    assert kr.weights.fetch(f"{server.url}/old/w.pt").read_bytes() == CONTENT


def test_a_broken_download_goes_on_where_it_ended(server, cache):
    answer = server.answers["/w.pt"] = Answer(CONTENT, cuts=[2_000_000])
    with pytest.raises(ConnectionError, match=r"w\.pt cannot be downloaded: .*incomplete"):
        kr.weights.fetch(f"{server.url}/w.pt")
    assert [path for path in cache.iterdir() if path.suffix == ".pt"] == []
    assert kr.weights.fetch(f"{server.url}/w.pt").read_bytes() == CONTENT
    # What came before the break is asked for no more.
    ranges = [wanted for _, _, wanted in server.requests if wanted]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").removesuffix("-")) > 1_000_000
    assert answer.cuts == []


def test_a_short_break_costs_nothing(server, monkeypatch):
    monkeypatch.setattr(fetching, "RETRIES", 2)
    monkeypatch.setattr(random, "uniform", lambda low, high: low)  # the pause before a new try
    server.answers["/w.pt"] = Answer(CONTENT, cuts=[500_000, 1_000_000])
    assert kr.weights.fetch(f"{server.url}/w.pt").read_bytes() == CONTENT


def test_a_server_without_ranges_does_not_spoil_the_file(server):
    server.answers["/w.pt"] = Answer(CONTENT, cuts=[2_000_000], ranges=False)
    with pytest.raises(ConnectionError):
        kr.weights.fetch(f"{server.url}/w.pt")
    with pytest.raises(ConnectionError, match="did not honor the requested byte range"):
        kr.weights.fetch(f"{server.url}/w.pt")


def test_a_file_that_changed_in_the_middle_of_a_download_is_refused(server):
    """As a server's archive whose checksums then do not fit."""
    first, second = (archive(random.Random(seed).randbytes(3_000_000)) for seed in (1, 2))
    server.answers["/w.pt"] = Answer(first, cuts=[2_000_000])
    with pytest.raises(ConnectionError):
        kr.weights.fetch(f"{server.url}/w.pt")
    server.answers["/w.pt"] = Answer(second)
    with pytest.raises(ValueError, match=r"gave a damaged file: archive/data/0 in it does not have its checksum"):
        kr.weights.fetch(f"{server.url}/w.pt")
    assert kr.weights.fetch(f"{server.url}/w.pt").read_bytes() == second  # anew


def archive(content):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data/0", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            Answer(SIGN_IN.encode()),
            ValueError,
            r'gave a web page instead of the file, called "Sign in - Google Accounts"',
        ),
        (Answer(b""), ValueError, "gave an empty file"),
        (Answer(status=404), ConnectionError, "cannot be downloaded: 404 Client Error"),
        (Answer(status=503), ConnectionError, "cannot be downloaded: 503 Server Error"),
    ],
)
def test_what_is_no_file(server, cache, answer, error, message):
    server.answers["/w.pt"] = answer
    with pytest.raises(error, match=message):
        kr.weights.fetch(f"{server.url}/w.pt")
    assert not [path for path in cache.iterdir() if path.suffix == ".pt"]
    server.answers["/w.pt"] = Answer(CONTENT)
    assert kr.weights.fetch(f"{server.url}/w.pt").read_bytes() == CONTENT


def test_no_server(server):
    server.close()
    with pytest.raises(ConnectionError, match=r"cannot be downloaded: .*refused"):
        kr.weights.fetch(f"{server.url}/w.pt")


def test_a_known_file(server):
    server.answers["/w.pt"] = Answer(CONTENT)
    with pytest.raises(ValueError, match=f"is another one: its SHA-256 is {SHA256}, expected is 01234567"):
        kr.weights.fetch(f"{server.url}/w.pt", sha256="01234567")
    assert kr.weights.fetch(f"{server.url}/w.pt", sha256=SHA256[:8]).read_bytes() == CONTENT
    with pytest.raises(ValueError, match="is not the file that is known"):
        kr.weights.fetch(f"{server.url}/w.pt", sha256="01234567")


def test_the_first_download_is_trusted_from_then_on(server):
    server.answers["/w.pt"] = Answer(CONTENT)
    path = kr.weights.fetch(f"{server.url}/w.pt")
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ValueError, match="has changed since it was downloaded from"):
        kr.weights.fetch(f"{server.url}/w.pt")
    path.unlink()
    server.answers["/w.pt"] = Answer(CONTENT[::-1])
    with pytest.raises(
        ValueError, match=r"at the first download: its SHA-256 was \w+ and is \w+\. To trust it from now on, remove"
    ):
        kr.weights.fetch(f"{server.url}/w.pt")
    path.with_name(f"{path.name}.json").unlink()
    assert kr.weights.fetch(f"{server.url}/w.pt").read_bytes() == CONTENT[::-1]


def test_larger_than_expected(server):
    server.answers["/w.pt"] = Answer(CONTENT)
    with pytest.raises(ValueError, match="3,000,000 bytes or more; at most 1,000,000 are expected"):
        kr.weights.fetch(f"{server.url}/w.pt", most=1_000_000)


def test_several_at_once_download_once(server):
    server.answers["/w.pt"] = Answer(CONTENT)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(kr.weights.fetch(f"{server.url}/w.pt", verbose=False)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "address",
    ["w.pt", "http://example.com/w.pt", "ftp://example.com/w.pt", "gdrive:", "hf://owner/w.pt", "https://x", None],
)
def test_other_addresses(address):
    with pytest.raises(ValueError, match="address must be gdrive:FILE_ID"):
        kr.weights.fetch(address)


@pytest.mark.parametrize(
    ("package", "address"), [("gdown", f"gdrive:{ID}"), ("huggingface_hub", "hf://owner/name/w.pt"), ("filelock", None)]
)
def test_missing_libraries_are_named(server, monkeypatch, package, address):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"downloads need {package}: pip install 'keras-robust\[weights\]'"):
        kr.weights.fetch(address or f"{server.url}/w.pt")


class TestDrive:
    """Under its own host names, with certificates, behind a proxy."""

    def test_small_file(self, monkeypatch, tmp_path):
        def answer(host, path, query):
            if path == "/uc":
                location = f"https://drive.usercontent.google.com/download?id={query['id'][0]}&export=download"
                return Answer(status=303, headers={"Location": location, "Content-Type": "text/html"})
            return attachment(CONTENT)

        with drive(monkeypatch, tmp_path) as server:
            server.answer = answer
            path = kr.weights.fetch(f"gdrive:{ID}", name="robust.pt")
        assert path.read_bytes() == CONTENT
        assert (path.name.startswith("robust-"), path.suffix) == (True, ".pt")

    def test_large_file_asks_for_confirmation_and_goes_on_after_a_break(self, monkeypatch, tmp_path):
        large = attachment(CONTENT, cuts=[2_000_000])

        def answer(host, path, query):
            if "confirm" not in query:
                return Answer(CONFIRMATION.format(id=query["id"][0]).encode(), headers={"Content-Type": "text/html"})
            assert (host, path, query["uuid"]) == ("drive.usercontent.google.com", "/download", ["ce320bab-e9f0"])
            return large

        with drive(monkeypatch, tmp_path) as server:
            server.answer = answer
            with pytest.raises(ConnectionError, match="incomplete"):
                kr.weights.fetch(f"gdrive:{ID}", name="robust.pt")
            assert kr.weights.fetch(f"gdrive:{ID}", name="robust.pt").read_bytes() == CONTENT
            assert [wanted for _, _, wanted in server.requests if wanted]

    @pytest.mark.parametrize(
        ("page", "message"),
        [
            (QUOTA, "Too many users have viewed or downloaded this file recently"),
            (SIGN_IN, "may need to change the permission"),
        ],
    )
    def test_pages_instead_of_the_file(self, monkeypatch, tmp_path, cache, page, message):
        with drive(monkeypatch, tmp_path) as server:
            server.answer = lambda host, path, query: Answer(page.encode(), headers={"Content-Type": "text/html"})
            with pytest.raises(ConnectionError, match=f"gdrive:{ID} cannot be downloaded: .*{message}"):
                kr.weights.fetch(f"gdrive:{ID}", name="robust.pt")
        assert not list(cache.glob("robust*.pt"))

    def test_pages_that_lead_to_themselves(self, monkeypatch, tmp_path):
        monkeypatch.setattr(fetching, "START_SECONDS", 0.5)
        with drive(monkeypatch, tmp_path) as server:
            page = Answer(CONFIRMATION.format(id=ID).encode(), headers={"Content-Type": "text/html"})
            server.answer = lambda host, path, query: page
            with pytest.raises(ConnectionError, match=r"nothing of it has come after 0\.5 seconds"):
                kr.weights.fetch(f"gdrive:{ID}", name="robust.pt")


def attachment(content, cuts=()):
    headers = {"Content-Type": "application/octet-stream", "Content-Disposition": 'attachment; filename="weights.pt"'}
    return Answer(content, headers=headers, cuts=list(cuts))


class TestHub:
    def test_small_and_large_files(self, hub):
        hub.files = {"owner/name/small.json": b'{"a": 1}', "owner/name/sub/large.pt": CONTENT}
        assert kr.weights.fetch("hf://owner/name/small.json").read_bytes() == b'{"a": 1}'
        assert kr.weights.fetch("hf://owner/name@v1/sub/large.pt").read_bytes() == CONTENT
        assert any("/resolve/v1/sub/large.pt" in path for _, path, _ in hub.hub.requests)
        assert hub.elsewhere.requests[0][1].endswith("?X-Signature=abc")

    def test_goes_on_after_a_break(self, hub):
        hub.files = {"owner/name/w.pt": CONTENT}
        hub.elsewhere.answers[f"/{SHA256}"] = Answer(CONTENT, cuts=[2_000_000])
        with pytest.raises(ConnectionError, match="incomplete"):
            kr.weights.fetch("hf://owner/name/w.pt")
        assert kr.weights.fetch("hf://owner/name/w.pt").read_bytes() == CONTENT
        assert hub.elsewhere.requests[-1][2] is not None

    def test_the_first_download_is_trusted_from_then_on(self, hub):
        """Whatever checksum the Hub states of another one."""
        hub.files = {"owner/name/w.pt": CONTENT}
        kr.weights.fetch("hf://owner/name/w.pt").unlink()
        hub.files = {"owner/name/w.pt": CONTENT[::-1]}
        with pytest.raises(ValueError, match=f"at the first download: its SHA-256 was {SHA256}"):
            kr.weights.fetch("hf://owner/name/w.pt")

    def test_the_hub_states_the_checksum_of_large_files(self, hub):
        hub.files = {"owner/name/w.pt": CONTENT}
        hub.elsewhere.answers[f"/{SHA256}"] = Answer(CONTENT[::-1])
        with pytest.raises(ValueError, match=f"expected is {SHA256}"):
            kr.weights.fetch("hf://owner/name/w.pt")

    @pytest.mark.parametrize("address", ["hf://owner/name/absent.pt", "hf://nobody/nothing/w.pt"])
    def test_not_there(self, hub, address):
        hub.files = {"owner/name/w.pt": CONTENT}
        with pytest.raises(ConnectionError, match=f"{address} cannot be downloaded: .*404"):
            kr.weights.fetch(address)


def test_no_redirect_leaves_encryption(monkeypatch, tmp_path):
    with drive(monkeypatch, tmp_path) as server:
        address = "https://drive.google.com/w.pt"
        server.answers["/w.pt"] = Answer(b"", status=302, headers={"Location": "http://drive.google.com/other.pt"})
        with pytest.raises(
            ValueError, match=r"w\.pt leads to http://drive\.google\.com/other\.pt, which is not encrypted"
        ):
            kr.weights.fetch(address)
        server.answers["/w.pt"] = Answer(b"", status=302, headers={"Location": "/other.pt"})
        server.answers["/other.pt"] = Answer(CONTENT)
        assert kr.weights.fetch(address).read_bytes() == CONTENT
        server.answers["/round.pt"] = Answer(b"", status=302, headers={"Location": "/round.pt"})
        with pytest.raises(ValueError, match="leads on more than 10 times"):
            kr.weights.fetch("https://drive.google.com/round.pt")
