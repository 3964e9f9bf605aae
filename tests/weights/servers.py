"""Servers on loopback that answer as those that weights are downloaded from.

They imitate what was documented or seen of the real ones: ranges and validators, redirects to signed addresses, Google
Drive's pages that ask for confirmation or speak of a quota, the Hub's headers; and what goes wrong on the way.
"""

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

DRIVE = ("drive.google.com", "drive.usercontent.google.com", "docs.google.com")
COMMIT = "c0ffee" + "0" * 34
# As Drive sends them to who is not signed in (issue threads of gdown, 2024 to 2026).
CONFIRMATION = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<p class="uc-warning-subcaption">weights.pt (1.1G) is too large for Google to scan for viruses.</p>
<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">\
<input type="submit" id="uc-download-link" value="Download anyway"/>\
<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">\
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="ce320bab-e9f0"></form>
</body></html>"""
QUOTA = """<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can&#39;t view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently. Please try accessing the \
file again later.</p></body></html>"""
SIGN_IN = "<!DOCTYPE html><html><head><title>Sign in - Google Accounts</title></head><body></body></html>"


@dataclass
class Answer:
    """An answer to a GET: its body, or what takes its place.

    Attributes:
        cuts: after how many bytes the connection breaks, one request after another; then whole.
        ranges: whether parts are given.
    """

    body: bytes = b""
    status: int = 200
    headers: dict = field(default_factory=dict)
    cuts: list = field(default_factory=list)
    ranges: bool = True


class Server:
    """A server of `answers` by path, or by what a function of (host, path, query) returns; notes the requests."""

    def __init__(self, tls=None):
        self.answers, self.requests, self.posted = {}, [], []
        self.answer = lambda host, path, query: self.answers.get(path, Answer(status=404, body=b"nothing here"))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                url = urlsplit(self.path)
                outer.requests.append((self.command, self.path, self.headers.get("Range")))
                self.send(outer.answer(self.headers["Host"], url.path, parse_qs(url.query)))

            do_HEAD = do_GET

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                outer.posted.append((self.command, self.path, body))
                self.send(outer.answer(self.headers["Host"], urlsplit(self.path).path, body))

            do_PUT = do_POST

            def send(self, answer):
                body, status, headers = answer.body, answer.status, dict(answer.headers)
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                if status == 200 and answer.ranges and answer.body:
                    headers.setdefault("ETag", f'"{hashlib.md5(answer.body).hexdigest()}"')
                    fresh = self.headers.get("If-Range") in (None, headers["ETag"])
                    if wanted and fresh:
                        start = int(wanted[1])
                        status, body = 206, body[start:]
                        headers["Content-Range"] = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                cut = answer.cuts.pop(0) if answer.cuts else None
                self.wfile.write(body[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(tls=None):
    server = Server(tls)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def drive(monkeypatch, folder):
    """Google Drive's host names on loopback: a proxy that leads all to one server with a certificate for them."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*DRIVE).configure_cert(context)
    authority.cert_pem.write_to_path(folder / "authority.pem")
    with serving(context) as server, _tunnel(server.port) as port:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "authority.pem"))
        yield server


@contextlib.contextmanager
def _tunnel(port):
    """A proxy that answers CONNECT, and leads every host to a port of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(client):
        with contextlib.suppress(OSError), client, socket.create_connection(("127.0.0.1", port)) as server:
            request = b""
            while b"\r\n\r\n" not in request:
                request += client.recv(4096)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


class Hub:
    """The Hugging Face Hub: small files by itself, large ones on another server behind a signed address.

    Attributes:
        files: content by "owner/name/file".
        created, cards: what was asked of it in uploads: repositories, and model cards.
        large: bytes from which on a file lies elsewhere.
    """

    def __init__(self, hub, elsewhere, large=1000):
        self.files, self.large, self.hub, self.elsewhere = {}, large, hub, elsewhere
        self.created, self.cards, self.objects = [], [], {}
        hub.answer = self._answer

    def _answer(self, host, path, query):
        if isinstance(query, bytes):
            return self._uploaded(path, query)
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if match is None or (name := f"{match[1]}/{match[3]}") not in self.files:
            code = (
                "EntryNotFound" if match and any(n.startswith(match[1] + "/") for n in self.files) else "RepoNotFound"
            )
            return Answer(b"", 404, {"X-Error-Code": code, "X-Error-Message": "Not here."})
        body = self.files[name]
        if len(body) < self.large:
            return Answer(body, headers={"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'})
        digest = hashlib.sha256(body).hexdigest()
        self.elsewhere.answers.setdefault(f"/{digest}", Answer(body))
        headers = {
            "Location": f"{self.elsewhere.url}/{digest}?X-Signature=abc",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Size": str(len(body)),
            "X-Linked-Etag": f'"{digest}"',
        }
        return Answer(b"", 302, headers)

    def _uploaded(self, path, body):
        """Answers to what `HfApi.upload_folder` sends: large files by git-lfs, others in the commit."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.created.append(asked)
            owner = asked.get("organization") or "me"
            return _json({"url": f"{self.hub.url}/{owner}/{asked['name']}", "name": f"{owner}/{asked['name']}"})
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            return _json({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = ["lfs" if file["size"] >= self.large else "regular" for file in files]
            return _json(
                {"files": [{"path": f["path"], "uploadMode": m, "shouldIgnore": False} for f, m in zip(files, modes)]}
            )
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return _json({"transfer": "basic", "objects": objects})
        if path.startswith("/lfs/"):
            self.objects[path.removeprefix("/lfs/")] = body
            return Answer(b"")
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path)
        if match is None:
            return Answer(b"", 404)
        for line in body.decode().splitlines():
            entry = json.loads(line)
            file = entry["value"]
            if entry["key"] == "file":
                self.files[f"{match[1]}/{file['path']}"] = base64.b64decode(file["content"])
            elif entry["key"] == "lfsFile":
                self.files[f"{match[1]}/{file['path']}"] = self.objects[file["oid"]]
        return _json({"commitUrl": f"{self.hub.url}/{match[1]}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})


def _json(content):
    return Answer(json.dumps(content).encode(), headers={"Content-Type": "application/json"}, ranges=False)


@contextlib.contextmanager
def serving_hub(monkeypatch):
    """A `Hub` that huggingface_hub takes for the real one."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as hub, serving() as elsewhere:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
        yield Hub(hub, elsewhere)
