"""Archives with links, devices, floods and lies in them: nothing is written outside, and little inside."""

import hashlib
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tasks.download import Archive, fetch
from tests.tasks.test_download import NOISE, tarred, zipped


def local(folder: Path, name: str, content: bytes, unpacks: str) -> Archive:
    """An archive at an address of this computer."""
    (folder / "served").mkdir(exist_ok=True)
    (folder / "served" / name).write_bytes(content)
    return Archive((folder / "served" / name).as_uri(), hashlib.md5(content).hexdigest(), unpacks)


def special(kind: bytes, target: str = "") -> bytes:
    """A tar of a file, and after it a member of another kind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("inside")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
        info = tarfile.TarInfo("special")
        info.type, info.linkname = kind, target
        archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        special(tarfile.LNKTYPE, "../secret"),
        special(tarfile.LNKTYPE, "/etc/passwd"),
        special(tarfile.SYMTYPE, "../secret"),
        special(tarfile.CHRTYPE),
        special(tarfile.BLKTYPE),
        special(tarfile.FIFOTYPE),
    ],
    ids=["hard link", "absolute hard link", "symbolic link", "character device", "block device", "pipe"],
)
def test_tar_with_links_outside_or_devices_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_text("secret")
    archive = local(tmp_path, "a.tar", content, "never")
    with pytest.raises(ValueError, match=r"a\.tar: refuses to unpack"):
        fetch([archive], tmp_path / "root")
    assert not (tmp_path / "root/special").exists()
    assert (tmp_path / "secret").stat().st_nlink == 1


def absolute(path: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(str(path))
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    return buffer.getvalue()


def test_absolute_tar_members_stay_in_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fetch([local(tmp_path, "a.tar", absolute(outside), "never")], tmp_path / "root")
    assert not outside.exists()
    assert (tmp_path / "root" / str(outside)[1:]).read_bytes() == b"x"


def test_link_in_a_zip_becomes_a_file(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr(info, "/etc/passwd")
        opened.writestr("link2", "x")
    fetch([local(tmp_path, "a.zip", buffer.getvalue(), "link")], tmp_path)
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "link").read_text() == "/etc/passwd"


def test_archives_that_unpack_to_a_flood_are_refused_before_it(tmp_path: Path) -> None:
    zeros, flood = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("small", NOISE[:1000])
        opened.writestr("zeros", bytes(2_000_000))
    with tarfile.open(fileobj=flood, mode="w:gz") as opened:
        info = tarfile.TarInfo("zeros")
        info.size = 2_000_000
        opened.addfile(info, io.BytesIO(bytes(2_000_000)))
    for name, content in (("a.zip", zeros.getvalue()), ("b.tgz", flood.getvalue())):
        with pytest.raises(ValueError, match=rf"{name}: refuses to unpack: its files would have over 100 times the bytes"):
            fetch([local(tmp_path, name, content, "never")], tmp_path)
        assert not (tmp_path / "zeros").exists()
        assert not (tmp_path / "small").exists()


def test_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """Python's reader stops at the size that was declared, and finds that the checksum is another."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("zeros", bytes(2_000_000))
    content = buffer.getvalue().replace((2_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(ValueError, match=r"a\.zip: refuses to unpack: .*zeros"):
        fetch([local(tmp_path, "a.zip", content, "never")], tmp_path)
    assert (tmp_path / "zeros").stat().st_size <= 1000


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_archive_that_is_none_is_one_sentence(tmp_path: Path, name: str) -> None:
    for content in (b"not an archive" * 100, b"", b"\x1f\x8b\x08\x00" + NOISE[:500]):
        with pytest.raises(ValueError, match=f"{name}: refuses to unpack: ") as caught:
            fetch([local(tmp_path, name, content, "never")], tmp_path)
        assert "\n" not in str(caught.value)
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["../outside", "/tmp/mobiletap-outside", "inside/../../outside"])
def test_zip_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = local(tmp_path, "a.zip", zipped(**{name: b"x"}), "never")
    with pytest.raises(ValueError, match=r"a\.zip: refuses to unpack"):
        fetch([archive], tmp_path / "root")
    assert not (tmp_path / "outside").exists()
    assert not Path("/tmp/mobiletap-outside").exists()


@pytest.mark.parametrize(
    "content",
    [tarred({"../outside": b"x"}), tarred({"inside/../../outside": b"x"}), tarred({"link": b""}, "/etc"), tarred({"link": b""}, "../..")],
    ids=["parent", "inner parent", "absolute link", "relative link"],
)
def test_tar_that_leaves_its_folder_is_refused(tmp_path: Path, content: bytes) -> None:
    archive = local(tmp_path, "a.tar", content, "never")
    with pytest.raises(ValueError, match=r"a\.tar: refuses to unpack"):
        fetch([archive], tmp_path / "root")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "root" / "link").exists()
