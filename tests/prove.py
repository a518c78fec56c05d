"""
The full counts behind the samples of the tests: `make prove`.

Seeded and resumable: what was proven is kept in `.demo/prove.json`, and a second call goes on from there. Prints a table.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tempfile
from pathlib import Path

SEED = 20_260_000
FLIPS = 5_000
KILLS = 20
INPUTS = 10_000
WORKER_KILLS = 100
EXECUTIONS = 100_000
STATE = Path(".demo/prove.json")


def main() -> int:
    """Run every part that is not proven yet; exit 1 when anything was missed."""
    state: dict[str, list[int]] = json.loads(STATE.read_text()) if STATE.exists() else {}
    STATE.parent.mkdir(exist_ok=True)
    for name, part in (
        ("bit flips in evidence caught", _flips),
        ("killed runs ended with the same digest", _kills),
        ("mutated files with one answer in time", _inputs),
        ("healthy executions right, workers killed", _worker_kills),
        ("executions with flat memory", _leak),
    ):
        if name not in state:
            state[name] = list(part())
            STATE.write_text(json.dumps(state))
    for name, (held, asked) in state.items():
        low, high = wilson(held, asked)
        sys.stdout.write(
            f"{name:45} {held:6} of {asked:6} ({held / asked:.2%}; 95 % interval {low:.2%} to {high:.2%})\n"
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
    from compliance.evidence import collect, verify
    from compliance.signing import SigningKey
    from tests.compliance.conftest import make_run

    chooser = random.Random(SEED)
    caught = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "evidence"
        collect(make_run(), folder, SigningKey.load_or_create(Path(scratch) / "keys"))
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
    from tests.detectors.leaking import growth_apart

    seen = growth_apart(EXECUTIONS, blocks=100)
    sys.stdout.write(f"{seen}\n")
    return (EXECUTIONS if seen.flat else 0), EXECUTIONS


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


if __name__ == "__main__":
    sys.exit(main())
