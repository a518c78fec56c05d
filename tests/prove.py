"""
The full counts behind the samples of the tests: `make prove`.

Seeded and resumable: what was proven is kept in `.demo/prove.json`, and a second call goes on from there. Prints a table.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from detectors.model import Language

SEED = 20_260_000
FLIPS = 5_000
KILLS = 20
INPUTS = 10_000
WORKER_KILLS = 100
EXECUTIONS = 100_000
LEDGER_FLIPS = 5_000
LEDGER_KILLS = 300
TAMPERINGS = 1_000
STATE = Path(".demo/prove.json")


def main() -> int:
    """Run every part that is not proven yet; exit 1 when anything was missed."""
    state: dict[str, list[int]] = json.loads(STATE.read_text()) if STATE.exists() else {}
    STATE.parent.mkdir(exist_ok=True)
    for name, part in (
        ("bit flips in evidence caught", _flips),
        ("tampered evidence judged alike by verify.py", _two_verifiers),
        ("killed runs ended with the same digest", _kills),
        ("mutated files with one answer in time", _inputs),
        ("healthy executions right, workers killed", _worker_kills),
        ("executions with flat memory", _leak),
        ("made-up files with one answer in time", _made),
        ("bit flips in a ledger caught at their record", _ledger_flips),
        ("ledger attacks caught without an anchor", partial(_ledger_attacks, "none")),
        ("ledger attacks caught by --public-key only", partial(_ledger_attacks, "public key")),
        ("ledger attacks caught by --checkpoint only", partial(_ledger_attacks, "checkpoint")),
        ("attacks on a retained ledger caught without one", partial(_ledger_attacks, "none", retained=True)),
        ("attacks on a retained ledger by --checkpoint", partial(_ledger_attacks, "checkpoint", retained=True)),
        ("bit flips in a retained ledger caught", partial(_ledger_flips, retained=True)),
        ("ledger cut at every byte of its last segment", _ledger_truncations),
        ("ledger writers stopped at each system call", _ledger_stops),
        ("retentions stopped at each system call", _retention_stops),
        ("ledger writers killed by kill -9", _ledger_kills),
    ):
        if name not in state:
            state[name] = list(part())
            STATE.write_text(json.dumps(state))
    for name, (held, asked) in state.items():
        low, high = wilson(held, asked)
        sys.stdout.write(
            f"{name:48} {held:6} of {asked:6} ({held / asked:.2%}; 95 % interval {low:.2%} to {high:.2%})\n"
        )
    return 0 if all(held == asked for held, asked in state.values()) else 1


def wilson(held: int, asked: int) -> tuple[float, float]:
    """
    Return the 95 % score interval of a share.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22(158), 1927.
    """
    z = 1.959964
    share, weight = held / asked, z * z / asked
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / asked + weight / (4 * asked))
    return max(0.0, middle - half), min(1.0, middle + half)


def _flips() -> tuple[int, int]:
    from compliance.evidence import verify
    from compliance.signing import SigningKey
    from tests.compliance.test_run_trail import make_evidence, place_of

    chooser = random.Random(SEED)
    caught = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "evidence"
        make_evidence(folder, place_of(Path(scratch)), SigningKey.load_or_create(Path(scratch) / "keys"))
        files = sorted(folder.iterdir())
        for number in range(FLIPS):
            file = files[number % len(files)]
            original = file.read_bytes()
            damaged = bytearray(original)
            damaged[chooser.randrange(len(damaged))] ^= 1 << chooser.randrange(8)
            file.write_bytes(bytes(damaged))
            verdict = verify(folder)
            caught += not verdict.ok and any(c.file == file.name and not c.ok for c in verdict.checked)
            file.write_bytes(original)
    return caught, FLIPS


def _two_verifiers() -> tuple[int, int]:
    """Tamper with evidence in every way there is; `evidence verify` and `verify.py` must say the same of it."""
    from compliance.signing import SigningKey
    from tests.compliance.conftest import make_run
    from tests.compliance.test_run_trail import make_evidence, place_of
    from tests.faults.evidence_tampering import Tampering, disagreements

    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        key, place = SigningKey.load_or_create(home / "keys"), place_of(home)
        make_evidence(home / "one", place, key)
        make_evidence(home / "two", place, key, msgspec.structs.replace(make_run(), run_id="f" * 32))
        make_evidence(home / "foreign", place_of(home, "other"), SigningKey.load_or_create(home / "stranger"))
        return _counted(disagreements(Tampering(home, SEED), TAMPERINGS))


def _kills() -> tuple[int, int]:
    """Kill a scan at random moments; the run after it must end with the digest of an undisturbed one."""
    chooser = random.Random(SEED)
    command = [sys.executable, "-m", "deployments.cli", "scan", "examples", "--json", "--fail-on", "never", "--cache"]

    def digest(cache: str) -> str:
        done = subprocess.run([*command, cache], capture_output=True, check=True)
        found: str = json.loads(done.stdout)["summary"]["findings_digest"]
        return found

    held = 0
    with tempfile.TemporaryDirectory() as scratch:
        calm = digest(f"{scratch}/calm")
        for number in range(KILLS):
            cache = f"{scratch}/{number}"
            process = subprocess.Popen([*command, cache], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                process.wait(chooser.uniform(0.1, 4.0))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            held += digest(cache) == calm
    return held, KILLS


def _worker_kills() -> tuple[int, int]:
    """Kill isolated workers at random moments while healthy executions run; each must have its right value."""
    from tests.detectors.killing import survive_kills

    right, asked, kills = survive_kills(SEED, WORKER_KILLS)
    sys.stdout.write(f"{kills} kills of isolated workers hit a living process\n")
    return (right if kills == WORKER_KILLS else 0), asked


def _leak() -> tuple[int, int]:
    """Run mixed executions through one pool; the whole is held or missed, so that all blocks count together."""
    from detectors.memory_leaks import Trial, tried_apart

    seen = tried_apart(Trial(EXECUTIONS, 100))
    sys.stdout.write(f"{seen}\n")
    return (0 if seen.leaks else EXECUTIONS), EXECUTIONS


def _inputs() -> tuple[int, int]:
    from tests.detectors.fuzz import mutated, problem_of

    held = 0
    for number, (name, language, data) in enumerate(mutated(SEED, INPUTS)):
        try:
            problem = problem_of(name, language, data)
        except Exception as crash:  # whatever it is, it is what is looked for
            problem = f"{type(crash).__name__}: {crash}"
        held += problem is None
        if problem is not None:
            sys.stdout.write(f"input {number} ({name}): {problem}\n")
    return held, INPUTS


def _made() -> tuple[int, int]:
    """Ask about inputs that hypothesis makes; seeded, without a database, so that each run asks the same."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests.detectors.fuzz import made, problem_of

    counts = [0, 0]

    @seed(SEED)
    @settings(
        max_examples=INPUTS,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(made())
    def ask(item: tuple[str, Language, bytes]) -> None:
        name, language, data = item
        try:
            problem = problem_of(name, language, data)
        except Exception as crash:  # whatever it is, it is what is looked for
            problem = f"{type(crash).__name__}: {crash}"
        counts[0] += problem is None
        counts[1] += 1
        if problem is not None:
            sys.stdout.write(f"made {language} {data!r}: {problem}\n")

    ask()
    return counts[0], max(counts[1], INPUTS)


def _counted(answers: Iterable[str | None]) -> tuple[int, int]:
    """Count answers that tell of nothing missed; print the others."""
    held = asked = 0
    for told in answers:
        asked += 1
        held += told is None
        if told is not None:
            sys.stdout.write(told + "\n")
    return held, asked


def _ledger_flips(*, retained: bool = False) -> tuple[int, int]:
    from tests.faults import tampering

    build = tampering.build_retained if retained else tampering.build
    with tempfile.TemporaryDirectory() as scratch:
        return _counted(tampering.flips(build(Path(scratch)), SEED, LEDGER_FLIPS))


def _ledger_attacks(anchor: str, *, retained: bool = False) -> tuple[int, int]:
    from tests.faults import tampering

    build = tampering.build_retained if retained else tampering.build
    attacks = tampering.ATTACKS_AFTER_RETENTION if retained else tampering.ATTACKS
    with tempfile.TemporaryDirectory() as scratch:
        sample = build(Path(scratch))
        chosen = [attack for attack in attacks if attack.anchor == anchor]

        def each() -> Iterator[str | None]:
            for number, attack in enumerate(chosen):
                place = Path(scratch) / f"attack{number}"
                place.mkdir()
                told = tampering.missed(attack, sample, place)
                sys.stdout.write(f"  {attack.name:38} {anchor:10} {'caught' if told is None else 'MISSED'}\n")
                yield told

        caught, asked = _counted(each())
    anchored = "the folder alone" if anchor == "none" else f"a {anchor} kept elsewhere"
    sys.stdout.write(f"caught {caught} of {asked} by {anchored}{' (after a retention)' if retained else ''}\n")
    return caught, asked


def _ledger_truncations() -> tuple[int, int]:
    from tests.faults import tampering

    with tempfile.TemporaryDirectory() as scratch:
        return _counted(tampering.truncations(tampering.build(Path(scratch))))


def _ledger_stops() -> tuple[int, int]:
    from tests.faults import ledger_crashes

    with tempfile.TemporaryDirectory() as scratch:
        base, keys, counted = Path(scratch) / "base", Path(scratch) / "keys", Path(scratch) / "counted"
        ledger_crashes.start(base, keys)
        shutil.copytree(base, counted)
        calls = ledger_crashes.calls_of_a_run(counted, keys)
        return _counted(
            ledger_crashes.missed_after_a_stop(base, keys, Path(scratch), stop, how)
            for how in ledger_crashes.HOWS
            for stop in range(1, calls + 1)
        )


def _retention_stops() -> tuple[int, int]:
    from tests.faults import ledger_crashes

    with tempfile.TemporaryDirectory() as scratch:
        base, keys, counted = Path(scratch) / "base", Path(scratch) / "keys", Path(scratch) / "counted"
        events = ledger_crashes.start_retention(base, keys)
        shutil.copytree(base, counted)
        disk = ledger_crashes.FailingDisk(0, "crash")
        ledger_crashes.retain(counted, keys, disk)
        return _counted(
            ledger_crashes.missed_after_a_stopped_retention(base, keys, events, (Path(scratch), stop, how))
            for how in ledger_crashes.HOWS
            for stop in range(1, disk.calls + 1)
        )


def _ledger_kills() -> tuple[int, int]:
    from tests.faults import ledger_crashes

    with tempfile.TemporaryDirectory() as scratch:
        return _counted(ledger_crashes.kills(Path(scratch), SEED, LEDGER_KILLS))


if __name__ == "__main__":
    sys.exit(main())
