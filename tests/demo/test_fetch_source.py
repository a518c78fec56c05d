"""Fetching source distributions: hash first, and no member leaves its folder."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fetch_source() -> ModuleType:
    """The script as a module; `demo` is no package."""
    spec = importlib.util.spec_from_file_location("fetch_source", ROOT / "demo" / "fetch_source.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 3) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    data = b"x" * size if kind == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


def _archive(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    file = folder / "pkg-1.0.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return file


@pytest.mark.parametrize(
    "member",
    [
        _member("../outside"),
        _member("/absolute"),
        _member("pkg-1.0/link", tarfile.SYMTYPE, "../../outside"),
        _member("pkg-1.0/hard", tarfile.LNKTYPE, "../outside"),
        _member("pkg-1.0/device", tarfile.CHRTYPE),
        _member("second/file"),
    ],
    ids=lambda member: member[0].name,
)
def test_members_that_leave_the_folder_are_refused(
    fetch_source: ModuleType, tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    """An archive must not write anywhere else."""
    archive = _archive(tmp_path, _member("pkg-1.0/setup.py"), member)
    before = {path for path in tmp_path.rglob("*") if "unpacked" not in path.parts}

    with pytest.raises(fetch_source.FetchError):
        fetch_source.unpack(archive, tmp_path / "unpacked")

    assert {path for path in tmp_path.rglob("*") if "unpacked" not in path.parts} == before
    assert not (tmp_path.parent / "outside").exists()


def test_archives_that_are_too_large_are_refused(
    fetch_source: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb must not fill the disk."""
    monkeypatch.setattr(fetch_source, "MAX_UNPACKED_BYTES", 1000)
    archive = _archive(tmp_path, _member("pkg-1.0/big", size=2000))

    with pytest.raises(fetch_source.FetchError, match="larger"):
        fetch_source.unpack(archive, tmp_path / "unpacked")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A package index of one distribution, named by the user's configuration."""
    links = tmp_path / "links"
    links.mkdir()
    archive = _archive(links, _member("pkg-1.0/setup.py"), _member("pkg-1.0/src/a.c"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("PIP_INDEX_URL", links.as_uri())
    return lambda: hashlib.sha256(archive.read_bytes()).hexdigest()


def test_a_pinned_distribution_is_fetched_once(
    fetch_source: ModuleType, tmp_path: Path, index: Callable[[], str]
) -> None:
    """From the index that the user configured; the second time nothing is asked."""
    place = fetch_source.fetch("pkg", "1.0", index(), tmp_path / "sources")
    (tmp_path / "links" / "pkg-1.0.tar.gz").unlink()
    again = fetch_source.fetch("pkg", "1.0", (place / ".sha256").read_text(), tmp_path / "sources")

    assert place == again == tmp_path / "sources" / "pkg-1.0"
    assert (place / "src" / "a.c").read_bytes() == b"xxx"


def test_another_hash_unpacks_nothing(fetch_source: ModuleType, tmp_path: Path, index: Callable[[], str]) -> None:
    """A replaced archive must be noticed before a byte of it is used."""
    index()
    with pytest.raises(fetch_source.FetchError, match="nothing was unpacked"):
        fetch_source.fetch("pkg", "1.0", "0" * 64, tmp_path / "sources")
    with pytest.raises(fetch_source.FetchError, match="no source distribution"):
        fetch_source.fetch("other", "1.0", "0" * 64, tmp_path / "sources")

    assert list((tmp_path / "sources").iterdir()) == []


def test_the_script_tells_what_is_wrong(tmp_path: Path) -> None:
    """Without a traceback."""
    script = str(ROOT / "demo" / "fetch_source.py")
    usage = subprocess.run([sys.executable, script], capture_output=True, check=False, text=True)
    unknown = subprocess.run(
        [sys.executable, script, str(ROOT / "demo" / "sources.json"), "nothing", str(tmp_path)],
        capture_output=True,
        check=False,
        text=True,
    )

    assert (usage.returncode, unknown.returncode) == (2, 1)
    assert "Traceback" not in usage.stderr + unknown.stderr
