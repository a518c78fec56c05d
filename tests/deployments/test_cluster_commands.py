"""`detector-pool cluster`: nothing without certificates, nothing beyond loopback, nothing ended that is not ours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from deployments.certificates import AUTHORITY, Authority, read_issued
from deployments.cluster_record import ClusterRecord, Place, end, process_start
from detectors.batch import analyse, blobs_of
from detectors.errors import ClusterError, FormatTooNew
from detectors.model import Analysed, NotAnalysed
from detectors.parallel_executor import DaskBackend
from detectors.ports import open_cluster
from detectors.scan import Scan, ScanOptions
from tests.deployments.cluster_fixtures import House

ROOT = Path(__file__).parents[2]
FAST = ("--detectors", "power-of-ten-c,power-of-ten-python", "--fail-on", "never")
pytestmark = pytest.mark.xdist_group("cluster")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A home with a cluster that grows from one worker to two."""
    made = House(tmp_path_factory.mktemp("cluster") / "home")
    done = made.run("cluster", "up", "--port", "0", "--adapt", "1:2", "--json", DETECTOR_POOL_PASSPHRASE="of the key")
    assert done.returncode == 0, done.stderr
    made.address = str(json.loads(done.stdout)["address"])
    try:
        yield made
    finally:
        assert made.run("cluster", "down").returncode == 0


@pytest.fixture
def address(house: House, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of its scheduler; this process lives in the same home."""
    monkeypatch.setenv("DETECTOR_POOL_HOME", str(house.home))
    return house.address


@pytest.mark.slow
def test_a_cluster_listens_on_loopback_only_and_tells_strangers_nothing(house: House) -> None:
    """Any other user of the machine, or of the network, could see or do our work."""
    shown = house.json("cluster", "status")
    leader = psutil.Process(shown["pid"])
    family = [leader, *leader.children(recursive=True)]
    listening = [
        place.laddr for one in family for place in one.net_connections(kind="inet") if place.status == "LISTEN"
    ]
    served = [
        (port, path)
        for port in {place.port for place in listening}
        for path in ("/", "/status", "/info", "/metrics", "/json/counts.json", "/api/v1/retire_workers")
        if _get(f"http://127.0.0.1:{port}{path}") not in (None, 404)
    ]
    state = house.home / "state" / "cluster"

    assert len(family) >= 2
    assert {place.ip for place in listening} == {"127.0.0.1"}
    assert served == []
    assert {stat.S_IMODE(file.stat().st_mode) for file in state.iterdir()} == {0o600}
    assert all(b"DETECTOR_POOL_PASSPHRASE" not in Path(f"/proc/{one.pid}/environ").read_bytes() for one in family[1:])


def _get(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as problem:
        return problem.code
    except OSError:
        return None


@pytest.mark.slow
def test_a_scan_on_it_gives_what_a_scan_without_it_gives(house: House, address: str, small_tree: Path) -> None:
    """When this fails, findings depend on where they were made, or on how the sources travelled."""
    digests = {
        how: house.json("scan", small_tree, *FAST, *words, "--no-cache")["summary"]["findings_digest"]
        for how, words in (
            ("inline", ("--cluster", "inline")),
            ("shared", ("--cluster", address)),
            ("shipped", ("--cluster", address, "--sources", "shipped")),
        )
    }

    assert digests["inline"] == digests["shared"] == digests["shipped"]
    assert house.run("scan", small_tree, "--cluster", address, "--sources", "carried").returncode == 2


@pytest.mark.slow
def test_a_worker_is_warm_and_pinned_before_it_works_and_more_come_with_the_work(house: House, address: str) -> None:
    """A cold worker makes the first batch of each run slow; a cluster that does not grow is one worker."""
    with open_cluster(address, 1) as client:
        seen = client.run(_prepared)
        futures = [client.submit(_long_enough, number, pure=False) for number in range(200)]
        client.wait_for_workers(2, timeout=100)
        client.cancel(futures)

    assert seen
    assert all(warm and told for warm, told in seen.values())


def _prepared(dask_worker: Any) -> tuple[bool, str]:
    placement = dask_worker.plugins["prepared-worker"].placement
    return {"detectors.batch", "tree_sitter"} <= sys.modules.keys(), placement.reason


def _long_enough(number: int) -> None:
    import time

    time.sleep(0.2)  # what Dask takes for worth another worker


@pytest.mark.slow
def test_workers_that_do_not_see_the_sources_are_told_apart(house: House, address: str, small_tree: Path) -> None:
    """When this fails, a worker elsewhere finds no file, and the run analyses nothing."""
    with Scan(ScanOptions((small_tree,), ("power-of-ten-c",))) as scan:
        seen = scan.snapshot()
    with open_cluster(address, 1) as client:
        backend = DaskBackend(client, 1, address)

        assert backend.shares_files((str(small_tree),), seen.files)
        assert not backend.shares_files((str(small_tree.with_name("elsewhere")),), seen.files)


def test_shipped_sources_are_held_against_their_digests(small_tree: Path) -> None:
    """When this fails, what arrives on a worker is believed, whatever happened to it on the way."""
    with Scan(ScanOptions((small_tree,), ("power-of-ten-c",), include=("*.c",))) as scan:
        scan.snapshot()
        batches = scan.plan()[0].batches
        batch = msgspec.structs.replace(batches[0], files=tuple(file for one in batches for file in one.files))
        whole = blobs_of(batch, (str(small_tree),))
        changed = {**whole, "jump.c": b"int f(void);\n"}
        (small_tree / "copy.c").unlink()
        lost = blobs_of(batch, (str(small_tree),))
    nowhere = ("/nowhere",)
    answers = {
        how: {outcome.path: outcome for outcome in analyse(batch, nowhere, blobs=blobs).outcomes}
        for how, blobs in (("whole", whole), ("changed", changed), ("lost", lost), ("empty", {}))
    }

    assert {type(one) for one in answers["whole"].values()} == {Analysed}
    assert isinstance(answers["changed"]["copy.c"], Analysed)
    assert _reason(answers["changed"]["jump.c"]) == "changed"
    assert _reason(answers["lost"]["copy.c"]) == "vanished"
    assert {_reason(one) for one in answers["empty"].values()} == {"vanished"}


def _reason(outcome: object) -> str:
    assert isinstance(outcome, NotAnalysed)
    return outcome.reason


@pytest.mark.slow
def test_other_code_on_this_side_is_refused(house: House, address: str, small_tree: Path, tmp_path: Path) -> None:
    """When this fails, evidence names code that is not what the workers ran."""
    for room in ("detectors", "compliance", "flows", "deployments"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    rule = tmp_path / "detectors" / "power_of_ten" / "c_goto.py"
    rule.write_text(rule.read_text() + "# another release\n")
    other = {"PYTHONPATH": str(tmp_path)}
    scanned = house.run("scan", small_tree, *FAST, "--cluster", address, **other)
    joined = house.run("cluster", "join", address, "--workers", "1", **other)

    assert (scanned.returncode, joined.returncode) == (2, 2), scanned.stderr + joined.stderr
    assert "own code is" in scanned.stderr
    assert "Install the same release" in joined.stderr


@pytest.mark.slow
def test_a_second_cluster_is_refused_while_one_is_up(house: House) -> None:
    """When this fails, the first one is forgotten, and goes on for ever."""
    again = house.run("cluster", "up", "--port", "0")

    assert again.returncode == 2
    assert "is up already" in again.stderr


@pytest.mark.slow
def test_workers_join_from_another_machine_with_a_workers_certificate_only(tmp_path: Path, small_tree: Path) -> None:
    """When this fails, a machine that lends its processors needs a client's or the authority's key."""
    house = House(tmp_path / "home", "127.0.0.1", "127.0.0.2")
    guest = tmp_path / "guest"
    guest.mkdir(mode=0o700)
    for name in (f"{AUTHORITY}.pem", "worker.pem"):
        shutil.copy(house.certificates / name, guest / name)
    address = str(house.json("cluster", "up", "--port", "0", "--workers", "0")["address"])
    command = [sys.executable, "-P", "-m", "deployments.cli", "cluster", "join", address]
    joined = subprocess.Popen(
        [*command, "--host", "127.0.0.2", "--workers", "1", "--certs", str(guest)],
        env={**os.environ, "DETECTOR_POOL_HOME": str(tmp_path / "elsewhere")}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert joined.stdout is not None
        assert json.loads(joined.stdout.readline()) == {"ready": address}
        (worker,) = house.json("cluster", "status")["workers"]
        scanned = house.json("scan", small_tree, *FAST, "--cluster", address, "--no-cache")
        assert house.run("cluster", "down").returncode == 0
        _, said = joined.communicate(timeout=60)
    finally:
        joined.kill()
        joined.communicate()
        house.run("cluster", "down")

    assert worker["address"].startswith("tls://127.0.0.2:")
    assert scanned["summary"]["executed"] > 0
    assert joined.returncode == 3
    assert b"has ended" in said


def test_nothing_starts_without_usable_certificates(tmp_path: Path) -> None:
    """When this fails, a cluster comes up that lets anyone in, or one that nobody can reach."""
    bare = tmp_path / "bare"
    house = House(tmp_path / "home")
    seen = {
        "none": house.run("cluster", "up", DETECTOR_POOL_HOME=str(bare)),
        "join": house.run("cluster", "join", "tls://127.0.0.1:1", DETECTOR_POOL_HOME=str(bare)),
        "host": house.run("cluster", "up", "--host", "127.0.0.9"),
        "plain": house.run("cluster", "join", "tcp://127.0.0.1:8786"),
        "adapt": house.run("cluster", "up", "--adapt", "4:2", "--foreground"),
    }
    authority = Authority.from_pem(read_issued(house.certificates, AUTHORITY), "here")
    expired = authority.issue("worker", ("127.0.0.1",), -1)
    (house.certificates / "worker.pem").write_text(expired.certificate + expired.key)
    seen["expired"] = house.run("cluster", "up")

    assert {name: done.returncode for name, done in seen.items()} == dict.fromkeys(seen, 2)
    assert "certs init" in seen["none"].stderr
    assert "certs init" in seen["join"].stderr
    assert "--host 127.0.0.9" in seen["host"].stderr
    assert "only tls://" in seen["plain"].stderr
    assert "MIN:MAX" in seen["adapt"].stderr
    assert "expired" in seen["expired"].stderr
    assert not (bare / "state" / "cluster" / "cluster.json").exists()


def test_down_ends_only_the_process_that_up_started(tmp_path: Path) -> None:
    """Numbers of processes are given again: somebody else's would be ended."""
    place = Place(tmp_path / "cluster")
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        seen = process_start(stranger.pid)
        assert seen is not None
        record = ClusterRecord("tls://127.0.0.1:1", stranger.pid, *seen, "log", "certs")
        for other in (
            msgspec.structs.replace(record, started_ticks=record.started_ticks - 1),
            msgspec.structs.replace(record, boot="another"),
        ):
            place.write(other)
            assert end(place.read() or record) == "gone"
            assert stranger.poll() is None
        os.kill(stranger.pid, signal.SIGSTOP)
        os.kill(stranger.pid, signal.SIGCONT)
        assert end(record) == "ended"
        assert process_start(stranger.pid) is None


def test_a_record_that_is_damaged_or_newer_is_refused(tmp_path: Path) -> None:
    """When this fails, a process is ended on the word of a file that means something else."""
    place = Place(tmp_path / "cluster")
    assert place.read() is None
    place.file.write_bytes(b"{}")
    with pytest.raises(ClusterError, match="damaged"):
        place.read()
    place.write(ClusterRecord("tls://127.0.0.1:1", 2, 3, "boot", "log", "certs", version=99))
    with pytest.raises(FormatTooNew, match="99"):
        place.read()
    with place.held(), pytest.raises(ClusterError, match="another command"), place.held():
        pass
