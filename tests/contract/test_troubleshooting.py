"""docs/troubleshooting.md: each problem provoked on real work, seen where the page says, and cured as the page says."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compliance import DefenseComplianceMonitor
from detectors import EnterpriseDetectorPool
from detectors.alerts import CallbackSink
from detectors.enterprise_detector_pool import BreakerPolicy
from detectors.errors import CircuitOpen, ConfigurationError
from detectors.health import HealthMonitor

MEBIBYTE = 1 << 20
KEPT: list[bytes] = []


def _keeps(_number: int) -> int:
    """Forget nothing: four mebibytes an execution."""
    KEPT.append(bytes(range(256)) * (4 * MEBIBYTE // 256))
    return len(KEPT)


def _hangs(number: int) -> int:
    while number:
        time.sleep(1)
    return number


def test_tiny_executions_are_overhead_and_larger_ones_are_not() -> None:
    """When this fails, the metrics do not show what the pool itself costs, or the page's cure is none."""
    text = "int f(int n) { return n; }\n" * 400
    shares = []
    for pieces in (text.splitlines() * 20, [text * 20] * 4):
        with EnterpriseDetectorPool(max_workers=1) as pool:
            pool.register_detector("words", lambda piece: len(piece.split()))
            assert all(result.ok for result in pool.execute_parallel([("words", (piece,), {}) for piece in pieces]))
            shares.append(pool.get_pool_metrics()["overhead_share"])

    assert shares[0] > shares[1]


def test_equal_executions_are_answered_from_the_cache_once_they_may_be() -> None:
    """When this fails, `from_cache` does not tell who computes the same again and again."""
    seen = {}
    for cacheable in (False, True):
        with EnterpriseDetectorPool(max_workers=2) as pool:
            pool.register_detector("sum", sum, cacheable=cacheable)
            pool.execute_parallel([("sum", ([1, 2, 3],), {})] * 50)
            totals = pool.get_pool_metrics()["detectors"]["sum"]
            seen[cacheable] = totals["executed"], totals["from_cache"]

    assert seen == {False: (50, 0), True: (1, 49)}


def test_a_cache_that_is_too_small_is_seen_and_cured() -> None:
    """When this fails, an operator cannot tell a cache that forgets from work that is new."""
    given = [("sum", ([number],), {}) for number in range(40)]
    seen = []
    for size in (10, 40):
        with EnterpriseDetectorPool(max_workers=1, cache_size=size) as pool:
            pool.register_detector("sum", sum, cacheable=True)
            for _ in range(2):
                pool.execute_parallel(given)
            metrics = pool.get_pool_metrics()
            seen.append((metrics["detectors"]["sum"]["from_cache"], metrics["cache_entries"]))

    assert seen[0][0] < 40
    assert seen[0][1] <= 10
    assert seen[1] == (40, 40)


def test_kept_results_that_are_too_old_are_computed_again() -> None:
    """When this fails, a longer `cache_ttl` cures nothing."""
    seen = []
    for ttl_s in (0.0, 3600.0):
        with EnterpriseDetectorPool(max_workers=1, cache_ttl=ttl_s) as pool:
            pool.register_detector("sum", sum, cacheable=True)
            for _ in range(5):
                assert pool.execute_detector("sum", [1, 2]).value == 3
            totals = pool.get_pool_metrics()["detectors"]["sum"]
            seen.append((totals["executed"], totals["from_cache"]))

    assert seen == [(5, 0), (1, 4)]


def test_kept_results_stay_within_their_bytes() -> None:
    """When this fails, the cache is the leak, and a smaller `cache_bytes` does not help."""
    held = []
    for limit in (64 * MEBIBYTE, MEBIBYTE):
        with EnterpriseDetectorPool(max_workers=1, cache_bytes=limit) as pool:
            pool.register_detector("text", lambda number: str(number) * 200_000, cacheable=True)
            pool.execute_parallel([("text", (number,), {}) for number in range(20)])
            held.append(pool.get_pool_metrics()["cache_bytes"])

    assert held[0] > 4_000_000
    assert held[1] <= MEBIBYTE


def test_profiling_tells_who_allocates() -> None:
    """When this fails, an operator with a full memory does not know whom to look at."""
    with EnterpriseDetectorPool(max_workers=1, enable_profiling=True) as pool:
        pool.register_detector("large", lambda: len(bytearray(16 * MEBIBYTE)))
        pool.register_detector("small", lambda: len(bytearray(16)))
        pool.execute_parallel([("large", (), {}), ("small", (), {})])
        seen = pool.get_pool_metrics()["detectors"]

    assert seen["large"]["profile"]["peak_allocated_bytes"] >= 16 * MEBIBYTE
    assert seen["small"]["profile"]["peak_allocated_bytes"] < MEBIBYTE


def test_a_leak_is_seen_and_contained_in_a_process_of_its_own() -> None:
    """When this fails, a detector that keeps everything takes the memory of all, and the metrics say nothing."""
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("keeps", _keeps)
        before = pool.get_pool_metrics()["memory_bytes"]
        pool.execute_parallel([("keeps", (number,), {}) for number in range(16)])
        leaked = pool.get_pool_metrics()["memory_bytes"] - before
        KEPT.clear()
        assert leaked > 32 * MEBIBYTE

        pool.register_detector("keeps", _keeps, isolation="process", memory_bytes=1 << 30, breaker=None)
        before = pool.get_pool_metrics()["memory_bytes"]
        pool.execute_parallel([("keeps", (number,), {}) for number in range(16)])
        metrics = pool.get_pool_metrics()

    assert metrics["memory_bytes"] - before < 32 * MEBIBYTE
    assert metrics["detectors"]["keeps"]["peak_bytes"] > 64 * MEBIBYTE
    assert not KEPT


def test_a_stream_of_results_is_not_a_list_of_them() -> None:
    """When this fails, the cure for long lists keeps them itself."""
    taken = 0
    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("length", len)
        for result in pool.execute_stream(("length", ("x" * number,), {}) for number in iter(int, 1)):
            assert result.value == 0
            taken += 1
            if taken == 3000:
                break

    assert taken == 3000


def test_what_keeps_failing_opens_its_breaker_and_closes_it_once_mended() -> None:
    """When this fails, a broken detector is run for ever, or a mended one never again."""
    broken = [True]

    def fragile(number: int) -> int:
        if broken[0]:
            raise ValueError(number)
        return number

    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("fragile", fragile, breaker=BreakerPolicy(failures=3, reset_s=0.05))
        results = [pool.execute_detector("fragile", number) for number in range(5)]
        seen = pool.get_pool_metrics()["detectors"]["fragile"]
        assert isinstance(results[-1].error, CircuitOpen)
        assert seen["failed"] >= 3
        assert seen["breaker"]["state"] == "open"

        broken[0] = False
        until = time.monotonic() + 60
        while not pool.execute_detector("fragile", 1).ok:
            assert time.monotonic() < until, "it stays open for ever"
        assert pool.get_pool_metrics()["detectors"]["fragile"]["breaker"]["state"] == "closed"


def test_what_hangs_is_ended_by_its_timeout() -> None:
    """When this fails, one call that never ends takes a worker for the rest of the night."""
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("hangs", _hangs, isolation="process", timeout_s=1.0, breaker=None)
        hung = pool.execute_detector("hangs", 1)
        fine = pool.execute_detector("hangs", 0)

    assert type(hung.error).__name__ == "ExecutionTimedOut"
    assert fine.value == 0


def test_health_says_which_detector_fails_and_that_it_is_well_again() -> None:
    """When this fails, nobody is told that a detector gives no results, or that it does again."""
    told: list[tuple[str, str]] = []
    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("inverse", lambda number: 1 / number, breaker=None)
        sink = CallbackSink(lambda alert: told.append((alert.check, alert.level)))
        with HealthMonitor(pool, sinks=(sink,)) as health:
            for number in (0, 1):
                pool.execute_parallel([("inverse", (number,), {})] * 4)
                health.check()

    assert [level for check, level in told if check == "failures"] == ["critical", "resolved"]


def test_a_configuration_that_makes_no_sense_is_refused_once_there_is_a_schema() -> None:
    """When this fails, a wrong limit gives wrong results all night, and no error."""
    schema = {"type": "object", "properties": {"limit": {"type": "integer", "minimum": 1}}}

    def longer(text: str, limit: int) -> bool:
        return len(text) > limit

    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("longer", longer, {"limit": -5})
        assert pool.execute_detector("longer", "").value is True
        with pytest.raises(ConfigurationError, match="limit"):
            pool.register_detector("longer", longer, {"limit": -5}, config_schema=schema)
        pool.register_detector("longer", longer, {"limit": 5}, config_schema=schema)
        assert pool.execute_detector("longer", "").value is False


def test_a_pool_without_an_audit_trail_violates_its_control_and_one_with_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When this fails, `audit_mode` is no cure for what `comply` shows."""
    monkeypatch.setenv("DETECTOR_POOL_HOME", str(tmp_path))
    held = []
    for audited in (False, True):
        with EnterpriseDetectorPool(max_workers=1, audit_mode=audited) as pool:
            (seen,) = DefenseComplianceMonitor(pool).validate_controls(["tamper-evident-audit"])
            held.append(seen.ok)

    assert held == [False, True]


def test_a_violation_lowers_the_score_and_mending_it_raises_it(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    """When this fails, `comply` passes what the rules forbid, or does not say when it is mended."""
    source = tmp_path / "tree" / "a.c"
    source.parent.mkdir()
    body = "#include <assert.h>\nint f(int n);\nint f(int n)\n{{\n    assert(n > 0);\n    assert(n < 9);\n{body}    return n;\n}}\n"
    source.write_text(body.format(body="    if (n == 3) goto out;\nout:\n"))
    bad = pool_command("comply", tmp_path / "tree", "--no-controls", "--fail-under", "100")
    source.write_text(body.format(body=""))
    good = pool_command("comply", tmp_path / "tree", "--no-controls", "--fail-under", "100")

    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert good.returncode == 0, good.stdout + good.stderr


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_doctor_sees_a_key_that_others_can_read_and_its_advice_cures_it(
    mode: int, pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    """When this fails, a key lies open and the machine is called ready."""
    from compliance.signing import SigningKey

    home = tmp_path / "home"
    keys = home / "state" / "keys"
    SigningKey.load_or_create(keys)
    key = keys / "signing-key.pem"
    key.chmod(mode)

    def seen() -> dict[str, Any]:
        done = pool_command("doctor", "--json", env={**os.environ, "DETECTOR_POOL_HOME": str(home)})
        checks = json.loads(done.stdout)["checks"]
        return next(check for check in checks if check["what"] == "signing key")

    open_to_others = seen()
    assert not open_to_others["ok"]
    subprocess.run(open_to_others["mend"].split(), check=True)
    assert seen()["ok"]


def test_doctor_sees_a_policy_that_is_wrong(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    """When this fails, every door is closed and `doctor` does not say why."""
    environment = {**os.environ, "DETECTOR_POOL_HOME": str(tmp_path / "home")}
    assert pool_command("access", "init", env=environment).returncode == 0
    policy = tmp_path / "home" / "state" / "access.toml"
    good = policy.read_bytes()

    def seen() -> bool:
        checks = json.loads(pool_command("doctor", "--json", env=environment).stdout)["checks"]
        return bool(next(check for check in checks if check["what"] == "access policy")["ok"])

    policy.write_bytes(good + b"\nno-such-key = 1\n")
    assert not seen()
    policy.write_bytes(good)
    assert seen()


ABSENT = """
from pathlib import Path

from detectors.detector import Tool

PROGRAM = Path({program!r})


class Absent(Tool):
    name = "absent"
    version = "1"
    languages = frozenset({{"c"}})

    def command(self, files):
        return [str(PROGRAM), *files]

    def parse(self, completed, sources):
        from detectors.model import FileReport

        return {{name: FileReport(()) for name in sources}}

    def missing(self):
        return None if PROGRAM.exists() else "install absent"

    def rules(self):
        return ()

    def code_files(self):
        return [Path(__file__)]
"""


def test_a_tool_that_is_missing_is_seen_and_its_files_are_not_clean_until_it_is_installed(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], small_tree: Path, tmp_path: Path
) -> None:
    """When this fails, a machine without a tool finds less and calls the tree clean."""
    installed, program = tmp_path / "installed", tmp_path / "bin" / "absent"
    (installed / "absent-1.0.dist-info").mkdir(parents=True)
    (installed / "absent-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: absent\nVersion: 1.0\n")
    entry = "[detector_pool.detectors]\nabsent = absent_tool\n"
    (installed / "absent-1.0.dist-info" / "entry_points.txt").write_text(entry)
    (installed / "absent_tool.py").write_text(ABSENT.format(program=str(program)))
    environment = {**os.environ, "DETECTOR_POOL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(installed)}

    def seen() -> tuple[dict[str, Any], subprocess.CompletedProcess[bytes]]:
        checks = json.loads(pool_command("doctor", "--json", env=environment).stdout)["checks"]
        words = ("--detectors", "absent", "--json", "--require-complete")
        scanned = pool_command("scan", small_tree, *words, env=environment)
        return next(check for check in checks if check["what"] == "detector absent"), scanned

    check, scanned = seen()
    assert (check["ok"], check["mend"]) == (False, "install absent")
    assert scanned.returncode == 4, scanned.stdout + scanned.stderr
    assert {entry["reason"] for entry in json.loads(scanned.stdout)["not_analysed"]} == {"tool-missing"}

    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    check, scanned = seen()
    assert check["ok"]
    assert scanned.returncode == 0, scanned.stdout + scanned.stderr
