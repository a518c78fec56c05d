"""
How long the rules over the whole tree take on the facts of many C files: the step that every edit runs anew.

    python -m benchmarks.reduce PATH... [--files N] [--runs N] [--profile]

Real `.c` and `.h` files below PATH are parsed once. To make N of them, their facts are repeated: in each further copy
of the set, in a folder of its own, every function, object and macro that the set defines gets a suffix of that copy,
wherever the facts name it; names of the C library stay. So each copy calls itself, as in one large tree. The facts are
stored in a cache as a scan stores them. A cold run opens the cache, loads the facts of all files, decodes them and runs
every tree rule, in a process of its own; a warm run takes the stored answer, as a scan does when nothing has changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detectors.cache import ResultCache
from detectors.detector import RuleGroup, discover, fact_readers
from detectors.measurement import mean_interval
from detectors.model import Analysed, FileReport, Finding
from detectors.parsing import Unparsable, collector_paused, parse

GROUP = "power-of-ten-c"
PATHS = "paths.json"
ANSWER = hashlib.sha256(b"the answer of the reduce step").digest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the number of files, and the mean of each kind of run with its interval."""
    shape = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(prog="reduce", description=__doc__, formatter_class=shape)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=5, help="of each kind (default 5)")
    parser.add_argument("--profile", action="store_true", help="show where the time of one cold run goes")
    parser.add_argument("--sample", choices=("cold", "warm"), help="one run on the cache that PATH names")
    options = parser.parse_args(arguments)
    if options.sample:
        print(json.dumps(_sample(options.paths[0], cold=options.sample == "cold")))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        real = _store(Path(folder), options.paths, options.files)
        if options.profile:
            _profile(Path(folder))
            return 0
        print(f"{options.files} files of {real} real ones")
        for kind in ("cold", "warm"):
            samples = [_run(folder, kind) for _ in range(options.runs)]
            for clock in ("wall", "processor"):
                seconds = [sample[clock] for sample in samples]
                print(f"{kind}, {clock}, seconds: {mean_interval(seconds).told()}")
            print(f"{kind}: {samples[0]['findings']:.0f} findings")
    return 0


def _store(folder: Path, paths: Sequence[Path], files: int) -> int:
    """Fill a cache with the facts of `files` files, and return how many real ones stand behind them."""
    group = _group()
    known: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(file for root in paths for file in root.rglob("*") if file.suffix in (".c", ".h")):
        if path.is_file() and not path.is_symlink():
            try:
                report = group.check_file(parse(path.read_bytes(), "c", path.name))
            except Unparsable:
                continue
            facts = {name: msgspec.msgpack.decode(data, strict=False) for name, data in report.facts.items()}
            known.append((str(path), facts))
    own = frozenset(name for _, facts in known for name in _defined(facts))
    made: list[str] = []
    with ResultCache(folder) as cache:
        for number in range(files):
            copy, place = divmod(number, len(known))
            report_path, facts = f"{copy}/{known[place][0]}", known[place][1]
            named = _renamed(facts, own, f"_{copy}") if copy else facts
            packed = {name: msgspec.msgpack.encode(value) for name, value in named.items()}
            cache.store("benchmark", [(_key(report_path), Analysed(report_path, GROUP, FileReport((), packed), 0.0))])
            made.append(report_path)
    (folder / PATHS).write_bytes(msgspec.json.encode(sorted(made)))
    return len(known)


def _defined(facts: dict[str, Any]) -> Iterable[str]:
    functions, macros = facts["c-calls"][0], facts["c-calls"][1]
    yield from (function[0] for function in functions)
    yield from macros
    yield from (name for name, _ in facts["c-objects"][0])
    yield from (name.lstrip("!") for name in facts["c-results"][0])


def _renamed(value: Any, own: frozenset[str], suffix: str) -> Any:
    """Return facts with the suffix at every name that the set defines; depth is that of the facts' few levels."""
    if isinstance(value, str):
        return value + suffix if value.removeprefix("!") in own else value
    if isinstance(value, dict):
        return {_renamed(key, own, suffix): _renamed(item, own, suffix) for key, item in value.items()}
    return [_renamed(item, own, suffix) for item in value] if isinstance(value, list) else value


def _sample(folder: Path, *, cold: bool) -> dict[str, float]:
    group, paths = _group(), _paths(folder)
    wall, processor = time.perf_counter(), time.process_time()
    with ResultCache(folder) as cache:
        found = _reduced(group, cache, paths) if cold else _taken(cache)
        spent = time.perf_counter() - wall, time.process_time() - processor
        if cold:
            packed = {"tree": msgspec.msgpack.encode(found)}
            cache.store("benchmark", [(ANSWER, Analysed("", GROUP, FileReport((), packed), 0.0))])
    return {"wall": spent[0], "processor": spent[1], "findings": len(found)}


def _reduced(group: RuleGroup, cache: ResultCache, paths: Sequence[str]) -> list[tuple[str, Finding]]:
    """Load and decode the facts of all files, and run the rules, as `Scan.reduce` does."""
    keys = [_key(path) for path in paths]
    stored = cache.facts(keys)
    with collector_paused():
        readers = fact_readers([group], {need for rule in group.tree_rules for need in rule.needs})
        facts: dict[str, dict[str, Any]] = {name: {} for name in readers}
        for path, key in zip(paths, keys, strict=True):
            packed = stored[key]
            for name, read in readers.items():
                facts[name][path] = read(packed[name])
        return list(group.check_tree(facts))


def _taken(cache: ResultCache) -> list[tuple[str, Finding]]:
    assert ANSWER in cache.lookup([ANSWER]), "a cold run stored it"
    return msgspec.msgpack.decode(cache.facts([ANSWER])[ANSWER]["tree"], type=list[tuple[str, Finding]])


def _run(folder: str, kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.reduce", folder, "--sample", kind]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def _profile(folder: Path) -> None:
    import cProfile
    import pstats

    group, paths = _group(), _paths(folder)
    profile = cProfile.Profile()
    with ResultCache(folder) as cache:
        profile.runcall(_reduced, group, cache, paths)
    pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def _group() -> RuleGroup:
    group = discover()[GROUP]
    assert isinstance(group, RuleGroup), "the rules are a group"
    return group


def _paths(folder: Path) -> list[str]:
    return msgspec.json.decode((folder / PATHS).read_bytes(), type=list[str])


def _key(path: str) -> bytes:
    return hashlib.sha256(path.encode()).digest()


if __name__ == "__main__":
    raise SystemExit(main())
