"""A download is resumed, checked and never half there."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from benchmarks.core.download import download
from tests.local_server import answering

CONTENT = bytes(range(256)) * 40


class Ranges(BaseHTTPRequestHandler):
    """Serves CONTENT at /file, from the byte that a Range header names."""

    asked: ClassVar[list[str | None]] = []

    def do_GET(self):
        self.asked.append(self.headers.get("Range"))
        if self.path != "/file":
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    Ranges.asked = []
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), Ranges)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_a_file_arrives_whole_and_its_folder_is_made(server, tmp_path):
    path, right = tmp_path / "new" / "file", hashlib.sha256(CONTENT).hexdigest()
    assert download(f"{server}/file", path, offline=False, sha256=right) is None
    assert path.read_bytes() == CONTENT
    assert Ranges.asked == [None]


def test_a_download_goes_on_where_it_broke_off(server, tmp_path):
    (tmp_path / ".file.part").write_bytes(CONTENT[:1000])
    assert download(f"{server}/file", tmp_path / "file", offline=False) is None
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Ranges.asked == ["bytes=1000-"]
    assert not (tmp_path / ".file.part").exists()


def test_a_wrong_file_is_refused_and_not_kept(server, tmp_path):
    said = download(f"{server}/file", tmp_path / "file", offline=False, sha256="0" * 64)
    assert said is not None
    assert "another file (sha256 " in said
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / ".file.part").exists()


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    (tmp_path / ".file.part").write_bytes(CONTENT + b"more")
    assert "416" in download(f"{server}/file", tmp_path / "file", offline=False)
    assert download(f"{server}/file", tmp_path / "file", offline=False) is None
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_missing_file_is_one_line(server, tmp_path):
    said = download(f"{server}/absent", tmp_path / "file", offline=False)
    assert "404" in said
    assert "\n" not in said
    assert not (tmp_path / "file").exists()


def test_offline_asks_nobody(server, tmp_path):
    said = download(f"{server}/file", tmp_path / "file", offline=True)
    assert said == "not downloading (offline)"
    assert Ranges.asked == []
