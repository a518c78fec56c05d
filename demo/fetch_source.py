"""
Get a source distribution without running anything of it: found through the user's own package index, its hash checked
before it is unpacked, and unpacked so that no member leaves the folder.

    python demo/fetch_source.py demo/sources.json psutil .demo/sources
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

MAX_ARCHIVE_BYTES = 256 << 20
MAX_UNPACKED_BYTES = 1 << 30
MAX_MEMBERS = 50_000
PRECEDENCE = ("global", "user", "site", "download", ":env:")
"""Sections of pip's configuration; a later one wins."""


class FetchError(Exception):
    """The source cannot be had, or is not what was pinned."""


def main(arguments: list[str]) -> int:
    """Fetch what the arguments name; print the folder."""
    if len(arguments) != 3:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    pins, name, folder = Path(arguments[0]), arguments[1], Path(arguments[2])
    try:
        pin = json.loads(pins.read_text())[name]
        sys.stdout.write(f"{fetch(name, pin['version'], pin['sha256'], folder)}\n")
    except (FetchError, OSError, KeyError, ValueError) as problem:
        sys.stderr.write(f"cannot fetch {name}: {problem}\n")
        return 1
    return 0


def fetch(name: str, version: str, sha256: str, folder: Path) -> Path:
    """
    Return the folder of an unpacked source distribution, fetching it when it is not there yet.

    Args:
        name: Of the package.
        version: Exact.
        sha256: Of the archive, hexadecimal.
        folder: Where sources are kept.

    Raises:
        FetchError: It is not found, has another hash, or would unpack outside of its folder.
    """
    place = folder / f"{name}-{version}"
    stamp = place / ".sha256"
    if stamp.is_file() and stamp.read_text() == sha256:
        return place
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = _download(name, version, Path(scratch))
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != sha256:
            raise FetchError(f"its sha256 is {found}, pinned is {sha256}; nothing was unpacked")
        fresh = unpack(archive, Path(scratch) / "unpacked")
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    stamp.write_text(sha256)
    return place


def unpack(archive: Path, folder: Path) -> Path:
    """
    Unpack a tar archive that holds one folder, and return that folder.

    Raises:
        FetchError: A member is too large, leaves the folder, or is neither file, folder nor link inside.
    """
    try:
        with tarfile.open(archive) as opened:
            members = opened.getmembers()
            if len(members) > MAX_MEMBERS or sum(member.size for member in members) > MAX_UNPACKED_BYTES:
                raise FetchError("it is larger than a source distribution may be")
            opened.extractall(folder, members, filter="data")
    except tarfile.TarError as problem:
        raise FetchError(f"its archive is refused: {problem}") from problem
    inside = list(folder.iterdir())
    if len(inside) != 1 or not inside[0].is_dir() or inside[0].is_symlink():
        raise FetchError("its archive does not hold exactly one folder")
    return inside[0]


def _download(name: str, version: str, folder: Path) -> Path:
    from unearth import PackageFinder

    settings = _pip_settings()
    own_index = [settings["index-url"]] if settings.get("index-url") else []
    # Without an index of the user's own, the finder brings the public one, as pip does.
    finder = PackageFinder(index_urls=own_index, no_binary=[":all:"])
    for url in settings.get("extra-index-url", "").split():
        finder.add_index_url(url)
    for place in settings.get("find-links", "").split():
        finder.add_find_links(place if "://" in place else Path(place).absolute().as_uri())
    match = finder.find_best_match(f"{name}=={version}").best
    if match is None or match.link is None:
        raise FetchError("no source distribution of this version is on the configured index")
    archive = folder / match.link.filename
    if match.link.is_file:
        shutil.copyfile(match.link.file_path, archive)
        return archive
    with finder.session.get_stream(match.link.normalized) as response, archive.open("wb") as target:
        response.raise_for_status()
        received = 0
        for chunk in response.iter_bytes():
            received += len(chunk)
            if received > MAX_ARCHIVE_BYTES:
                raise FetchError(f"its archive is larger than {MAX_ARCHIVE_BYTES} bytes")
            target.write(chunk)
    return archive


def _pip_settings() -> dict[str, str]:
    """Return pip's own configuration: files and environment, as `pip config list` shows it."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
    found: dict[str, tuple[int, str]] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        rank = PRECEDENCE.index(section) if section in PRECEDENCE else 0
        if rank >= found.get(name, (0, ""))[0]:
            found[name] = rank, value.strip().strip("'\"").replace("\\n", " ")
    return {name: value for name, (_, value) in found.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
