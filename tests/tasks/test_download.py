"""Downloads from a server in this process, and unpacking."""

import errno
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import download
from tasks.download import Archive, fetch

NOISE = np.random.default_rng(0).bytes(100_000)


class Server(ThreadingHTTPServer):
    """Serves `files`; notes the Range header of every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str | None] = []
        self.knows_ranges = True
        self.drops_after: int | None = None
        self.shift = 0

    def add(self, name: str, content: bytes, unpacks: str, md5: str | None = None) -> Archive:
        self.files["/" + name] = content
        return Archive(f"http://127.0.0.1:{self.server_port}/{name}", md5 or hashlib.md5(content).hexdigest(), unpacks)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requests.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) + self.server.shift if wanted and self.server.knows_ranges else 0
        if start and start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start:][: self.server.drops_after])
        return None

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as served:
        threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield served
        served.shutdown()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if link:
                info.type, info.linkname, info.size = tarfile.SYMTYPE, link, 0
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_zip_and_tar_are_unpacked_and_deleted(server: Server, tmp_path: Path) -> None:
    archives = [
        server.add("a.zip", zipped(**{"data/one.bin": NOISE}), "data/one.bin"),
        server.add("b.tar", tarred({"data/two.bin": NOISE}), "data/two.bin"),
    ]
    fetch(archives, tmp_path / "deep" / "root")
    root = tmp_path / "deep" / "root"
    assert (root / "data/one.bin").read_bytes() == NOISE
    assert (root / "data/two.bin").read_bytes() == NOISE
    assert [path.name for path in root.iterdir() if path.name != ".download.lock"] == ["data"]


def test_nothing_is_fetched_twice(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    fetch([archive], tmp_path)
    fetch([archive], str(tmp_path))
    assert server.requests == [None]


def test_archive_that_is_there_is_not_fetched(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    (tmp_path / "a.zip").write_bytes(server.files["/a.zip"])
    fetch([archive], tmp_path)
    assert server.requests == []
    assert (tmp_path / "one").read_bytes() == NOISE


def test_progress_counts_all_bytes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.progress

    shown: list[rich.progress.Progress] = []
    stop = rich.progress.Progress.stop
    monkeypatch.setattr(rich.progress.Progress, "stop", lambda progress: (shown.append(progress), stop(progress)))
    monkeypatch.setattr(download, "CHUNK", 1000)
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    (tmp_path / "a.zip.part").write_bytes(server.files["/a.zip"][:5000])
    fetch([archive], tmp_path)
    (task,) = shown[0].tasks
    assert (task.description, task.completed, task.total) == ("a.zip", len(server.files["/a.zip"]), len(server.files["/a.zip"]))


def test_wrong_checksum_deletes_the_file(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one", md5="0" * 32)
    with pytest.raises(ValueError, match=r"a\.zip: the download has MD5 \w{32}, not 0{32}, and was deleted"):
        fetch([archive], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".download.lock"]


def test_part_is_resumed(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    (tmp_path / "a.zip.part").write_bytes(server.files["/a.zip"][:40_000])
    fetch([archive], tmp_path)
    assert server.requests == ["bytes=40000-"]
    assert (tmp_path / "one").read_bytes() == NOISE


def test_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    (tmp_path / "a.zip.part").write_bytes(b"x" * 40_000)
    fetch([archive], tmp_path)
    assert server.requests == ["bytes=40000-"]
    assert (tmp_path / "one").read_bytes() == NOISE


def test_complete_part_needs_no_more(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    (tmp_path / "a.zip.part").write_bytes(server.files["/a.zip"])
    fetch([archive], tmp_path)
    assert (tmp_path / "one").read_bytes() == NOISE


def test_dropped_connection_is_resumed(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    server.drops_after = 30_000
    with pytest.raises(ValueError, match="cannot be downloaded"):
        fetch([archive], tmp_path)
    server.drops_after = None
    fetch([archive], tmp_path)
    assert server.requests == [None, "bytes=30000-"]
    assert (tmp_path / "one").read_bytes() == NOISE


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_interrupted_unpacking_is_done_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    members = {"data/one": NOISE, "data/two": NOISE}
    archive = server.add(name, zipped(**members) if name.endswith("zip") else tarred(members), "data")

    def disk_full(opened: zipfile.ZipFile | tarfile.TarFile, path: Path, *members: object, **options: object) -> None:
        options.pop("members", None)
        opened.extract("data/one", path, **options)  # type: ignore[arg-type]
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "extractall", disk_full)
        patch.setattr(tarfile.TarFile, "extractall", disk_full)
        with pytest.raises((OSError, ValueError), match="No space left"):
            fetch([archive], tmp_path)
    fetch([archive], tmp_path)
    assert (tmp_path / "data/two").is_file()
    assert server.requests == [None]


def test_absent_file_and_unreachable_address_are_named(server: Server, tmp_path: Path) -> None:
    absent = Archive(f"http://127.0.0.1:{server.server_port}/absent.zip", "", "x")
    with pytest.raises(ValueError, match=r"absent\.zip cannot be downloaded: HTTP Error 404"):
        fetch([absent], tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    with pytest.raises(ValueError, match=rf"127.0.0.1:{port}/a\.zip cannot be downloaded"):
        fetch([Archive(f"http://127.0.0.1:{port}/a.zip", "", "x")], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".download.lock"]


def test_reply_that_is_not_http_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        with pytest.raises(ValueError, match="cannot be downloaded"):
            fetch([Archive(f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip", "", "x")], tmp_path)
        thread.join()


def test_file_address(tmp_path: Path) -> None:
    content = zipped(one=NOISE)
    (tmp_path / "a.zip").write_bytes(content)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.zip.part").write_bytes(b"old")
    fetch([Archive((tmp_path / "a.zip").as_uri(), hashlib.md5(content).hexdigest(), "one")], tmp_path / "root")
    assert (tmp_path / "root" / "one").read_bytes() == NOISE
    assert (tmp_path / "a.zip").is_file()


def test_part_of_a_file_that_has_changed_is_not_kept(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    (tmp_path / "a.zip.part").write_bytes(b"of an older file" * 1000)
    with pytest.raises(ValueError, match=r"the download has MD5 \w{32}, not \w{32}, and was deleted; try again"):
        fetch([archive], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".download.lock"]
    fetch([archive], tmp_path)
    assert server.requests == ["bytes=16000-", None]
    assert (tmp_path / "one").read_bytes() == NOISE


def test_part_that_is_longer_than_the_file_is_not_kept(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    (tmp_path / "a.zip.part").write_bytes(server.files["/a.zip"] + b"x")
    with pytest.raises(ValueError, match="was deleted; try again"):
        fetch([archive], tmp_path)
    fetch([archive], tmp_path)
    assert (tmp_path / "one").read_bytes() == NOISE


def test_other_part_than_asked_for_is_not_appended(server: Server, tmp_path: Path) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    content = server.files["/a.zip"]
    (tmp_path / "a.zip.part").write_bytes(content[:40_000])
    server.shift = 1
    with pytest.raises(ValueError, match="asked for the bytes from 40000 on, the server sent bytes 40001-"):
        fetch([archive], tmp_path)
    assert (tmp_path / "a.zip.part").read_bytes() == content[:40_000]
    server.shift = 0
    fetch([archive], tmp_path)
    assert (tmp_path / "one").read_bytes() == NOISE


def test_full_disk_is_named_and_the_download_goes_on_later(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = server.add("a.zip", zipped(one=NOISE), "one")
    opened = Path.open

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            if self.tell() >= 50_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content)

    monkeypatch.setattr(download, "CHUNK", 10_000)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode="r": Full(path, "w") if path.suffix == ".part" else opened(path, mode))
        with pytest.raises(ValueError, match=r"No space left on device; the same command goes on from .*a\.zip\.part") as caught:
            fetch([archive], tmp_path)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "a.zip.part").stat().st_size == 50_000
    fetch([archive], tmp_path)
    assert server.requests == [None, "bytes=50000-"]
    assert (tmp_path / "one").read_bytes() == NOISE
