"""What a user would run instead, in the same run: the same tools, command lines and files, by other means."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import ClassVar

import msgspec

from detectors.benchmark_record import BenchmarkRun, Figure, measured
from detectors.benchmark_work import Work
from detectors.detector import Tool, discover
from detectors.dimension import BenchmarkFailed, Dimension, command, timed
from detectors.measurement import mean_interval, ratio_interval

__all__ = ["OURS", "STATES", "Peers", "peers_table", "run_tool"]

TOOLS = ("ruff", "bandit", "flawfinder", "lizard")
COMPILED = "cppcheck"
"""The tool that CodeChecker has in common with us; it looks at C only, and needs a compile database."""
OURS = "detector-pool"
STATES = ("cold", "warm", "one file edited", "1 % edited")
COMPILED_STATES = ("cold, cppcheck on C", "warm, cppcheck on C")
FILES, COMPILED_FILES = 960, 40
BATCH = 100
"""Files on a command line, for every peer alike."""
EDITED_SHARE = 0.01
LEAST_ROUNDS, MOST_ROUNDS = 3, 20
COLD_AIM, WARM_AIM = 0.7, 20.0
"""Our cold time over that of xargs; how many times faster we are when nothing changed."""
CLEAN = (0, 1)
"""Exit codes of the tools after a finished analysis."""
COMPILED_BYTES = 20_000


class _Job(msgspec.Struct, frozen=True):
    """One tool on all of its files: the beginning of its command line, and the files in batches."""

    tool: str
    words: tuple[str, ...]
    batches: tuple[tuple[str, ...], ...]


class Peers(Dimension):
    """
    The same wrapped tools one after another, under `xargs`, by processes, by `dask.bag`, by pre-commit and CodeChecker.

    All in turn, on one tree of real files. Only pre-commit and CodeChecker know states beside cold: whoever keeps
    nothing does all of it again, and its cold time counts. pre-commit is told which files were edited, as a commit
    tells it, and then speaks of those alone.
    """

    name: ClassVar[str] = "peers"
    share: ClassVar[float] = 4.0
    by_name_only: ClassVar[bool] = True

    def measure(self, work: Work) -> Iterator[Figure]:
        """Yield the seconds of each peer and state, and how they compare with ours."""
        tree = work.tree("peers", min(FILES, len(work.files(FILES))))
        stage = _Stage(work, tree, _jobs(tree))
        seconds: dict[tuple[str, str], list[float]] = {}
        began = time.perf_counter()
        for number in range(MOST_ROUNDS):
            self._round(number, stage, seconds)
            spent_s = time.perf_counter() - began
            sys.stderr.write(f"peers: round {number + 1} done after {spent_s:.0f} s\n")
            if number + 1 >= LEAST_ROUNDS and spent_s * (number + 2) / (number + 1) > work.budget_s:
                break
        assert seconds, "something was measured"
        assert (OURS, "cold") in seconds, "we are among them"
        for (peer, state), values in seconds.items():
            yield measured(
                f"{peer}: {state}", self.name, f"seconds of {peer}, {state}", values, unit="s", better="lower"
            )  # fmt: skip
            ours = seconds.get((OURS, state), [])
            if peer != OURS and len(ours) == len(values):
                yield _over(f"{peer}: {state}", values, ours, self.name)
        for peer in ("xargs", "pre-commit"):
            if (peer, "cold") in seconds:
                again = seconds.get((peer, "warm"), seconds[peer, "cold"])
                yield _over(f"{peer}: all again, over warm", again, seconds[OURS, "warm"], self.name)

    def _round(self, number: int, stage: _Stage, seconds: dict[tuple[str, str], list[float]]) -> None:
        """Run each peer once in each state that it knows; who goes first moves on by one each round."""
        groups: list[list[tuple[str, str, Callable[[], float]]]] = [
            [(OURS, "cold", partial(stage.ours_cold, number))],
            [("one after another", "cold", stage.in_turn)],
            [("xargs", "cold", stage.xargs)],
            [("ProcessPoolExecutor", "cold", stage.processes)],
            [("dask.bag", "cold", stage.bag)],
        ]
        if stage.pre_commit:
            groups.append([("pre-commit", "cold", stage.committed), ("pre-commit", "warm", stage.committed)])
        if stage.codechecker:
            ours, theirs = (partial(run, number) for run in (stage.ours_compiled, stage.checked))
            groups.append(
                [(who, state, run) for state in COMPILED_STATES for who, run in ((OURS, ours), ("CodeChecker", theirs))]
            )
        assert len(groups) >= 5, "these are always there"
        turn = number % len(groups)
        for group in (*groups[turn:], *groups[:turn]):
            for peer, state, run in group:
                seconds.setdefault((peer, state), []).append(run())
        seconds.setdefault((OURS, "warm"), []).append(stage.ours_again())
        for state, count in ((STATES[2], 1), (STATES[3], max(1, round(EDITED_SHARE * len(stage.files))))):
            edited = stage.edit(number, count)
            assert len(edited) == count, "so many were edited"
            seconds.setdefault((OURS, state), []).append(stage.ours_again())
            if stage.pre_commit:
                seconds.setdefault(("pre-commit", state), []).append(stage.committed(edited))


class _Stage:
    """One tree, and everybody's way to run the tools on it."""

    def __init__(self, work: Work, tree: Path, jobs: tuple[_Job, ...]) -> None:
        self.work, self.tree, self.jobs = work, tree, jobs
        self.files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
        self.pre_commit = shutil.which("pre-commit") or ""
        self.codechecker = (shutil.which("CodeChecker") or "") if shutil.which(COMPILED) else ""
        self._compiled = _compile_database(tree, work.place("compiled")) if self.codechecker else None
        assert self.files, "there is something to analyse"
        assert self.jobs, "by somebody"
        if self.pre_commit:
            _repository(tree, jobs)
        self._home = work.place("home-peers")
        _ = self.ours_again()

    def ours_cold(self, number: int) -> float:
        assert number >= 0, "rounds are counted from 0"
        return self._ours(self.work.place(f"home-peers-{number}"), TOOLS, self.tree)

    def ours_again(self) -> float:
        assert self._home.is_dir(), "what was found before lies there"
        return self._ours(self._home, TOOLS, self.tree)

    def ours_compiled(self, number: int) -> float:
        assert self._compiled is not None, "there is a compile database"
        home = self.work.scratch / f"home-compiled-{number}"
        home.mkdir(exist_ok=True)
        return self._ours(home, (COMPILED,), self._compiled)

    def _ours(self, home: Path, tools: Sequence[str], tree: Path) -> float:
        output = self.work.scratch / "ours.json"
        run = command(
            "scan", tree, "--detectors", ",".join(tools), "--workers", str(self.work.workers), "--no-ignore",
            "--fail-on", "never", "--json", "--output", output, home=home,
        )  # fmt: skip
        summary = json.loads(output.read_bytes())["summary"]
        assert summary["files"] > 0, "it looked at something"
        assert run.seconds > 0, "and took time"
        return run.seconds

    def in_turn(self) -> float:
        assert self.jobs, "there is something to run"
        return timed(lambda: [run_tool([*job.words, *batch], self.tree) for job in self.jobs for batch in job.batches])

    def xargs(self) -> float:
        assert shutil.which("xargs"), "it is a part of every Unix"
        return timed(lambda: [self._xargs(job) for job in self.jobs])

    def _xargs(self, job: _Job) -> int:
        assert job.batches, "it has files"
        listed = "".join(f"{name}\0" for batch in job.batches for name in batch)
        words = ["xargs", "-0", f"-P{self.work.workers}", "-n", str(BATCH), *job.words]
        done = subprocess.run(words, input=listed.encode(), cwd=self.tree, capture_output=True, check=False)
        # xargs answers 123 where a command answered 1 to 125.
        if done.returncode not in (0, 123):
            raise BenchmarkFailed(f"xargs ended with {done.returncode}: {done.stderr[-200:]!r}")
        return done.returncode

    def processes(self) -> float:
        def run() -> None:
            with ProcessPoolExecutor(self.work.workers) as bare:
                codes = list(bare.map(run_tool, *zip(*self._calls(), strict=True)))
                assert len(codes) == sum(len(job.batches) for job in self.jobs), "each batch was run"

        return timed(run)

    def bag(self) -> float:
        import dask.bag

        calls = self._calls()

        def run() -> None:
            assert calls, "there is something to run"
            bag = dask.bag.from_sequence(calls, npartitions=len(calls)).starmap(run_tool)  # type: ignore[no-untyped-call]  # ships no types
            codes = bag.compute(scheduler="processes", num_workers=self.work.workers)
            assert len(codes) == len(calls), "each batch was run"

        return timed(run)

    def committed(self, files: Sequence[str] = ()) -> float:
        chosen = ["--files", *files] if files else ["--all-files"]
        run = command(
            "run", *chosen, home=self._home, program=self.pre_commit, cwd=self.tree, codes=CLEAN,
            environment={"PRE_COMMIT_HOME": str(self.work.scratch / "pre-commit")},
        )  # fmt: skip
        assert run.seconds > 0, "a process takes time"
        return run.seconds

    def checked(self, number: int) -> float:
        assert self._compiled is not None, "there is a compile database"
        assert self.codechecker, "and who reads it"
        words = ("analyze", self._compiled / "compile_commands.json", "-o", self.work.scratch / f"reports-{number}")
        run = command(
            *words, "--analyzers", COMPILED, "-j", str(self.work.workers), home=self._home, program=self.codechecker,
            codes=(0, 2, 3),
        )  # fmt: skip
        return run.seconds

    def edit(self, number: int, count: int) -> list[str]:
        """Change the content of files, spread over the tree, to what was never seen before."""
        assert 1 <= count <= len(self.files), "some of all"
        chosen = self.files[:: max(1, len(self.files) // count)][:count]
        for name in chosen:
            mark = f"edited {number} {count}"
            with (self.tree / name).open("a", encoding="utf-8") as file:
                written = file.write(f"\n# {mark}\n" if name.endswith(".py") else f"\n/* {mark} */\n")
            assert written > 0, "it is another file now"
        return chosen

    def _calls(self) -> list[tuple[list[str], Path]]:
        assert self.tree.is_dir(), "they run in the tree"
        return [([*job.words, *batch], self.tree) for job in self.jobs for batch in job.batches]


def run_tool(words: Sequence[str], cwd: Path) -> int:
    """
    Run a tool on a batch of files and read its output, as a script does.

    Raises:
        BenchmarkFailed: It did not finish its analysis.
    """
    done = subprocess.run(list(words), cwd=cwd, capture_output=True, check=False)
    if done.returncode not in CLEAN:
        raise BenchmarkFailed(f"{words[0]} ended with {done.returncode}: {done.stderr[-200:]!r}")
    assert done.returncode >= 0, "no signal ended it"
    assert words, "a command has words"
    return done.returncode


def _jobs(tree: Path) -> tuple[_Job, ...]:
    """Return the wrapped tools' own command lines over the files of their languages."""
    files = sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
    registry = discover()
    made: list[_Job] = []
    for name in TOOLS:
        tool = registry[name]
        assert isinstance(tool, Tool), "what is compared are tools"
        if tool.missing():
            raise BenchmarkFailed(f"{name} is missing: {tool.missing()}")
        suffixes = tuple(
            suffix for suffix, language in ((".py", "python"), (".c", "c"), (".h", "c")) if language in tool.languages
        )
        own = [file for file in files if file.endswith(suffixes)]
        batches = tuple(tuple(own[at : at + BATCH]) for at in range(0, len(own), BATCH))
        made.append(_Job(name, tuple(tool.command(["file"])[:-1]), batches))
    assert all(job.batches for job in made), "each tool has files"
    assert len(made) == len(TOOLS), "each tool is compared"
    return tuple(made)


def _repository(tree: Path, jobs: Sequence[_Job]) -> None:
    """Make the tree a git repository whose hooks are the same command lines."""
    hooks = [
        {
            "id": job.tool, "name": job.tool, "language": "system", "pass_filenames": True,
            "entry": " ".join(job.words), "files": r"\.py$" if job.batches[0][0].endswith(".py") else r"\.(c|h)$",
        }
        for job in jobs
    ]  # fmt: skip
    for hook, job in zip(hooks, jobs, strict=True):
        if {name.rpartition(".")[2] for batch in job.batches for name in batch} >= {"py", "c"}:
            hook["files"] = r"\.(py|c|h)$"
    written = (tree / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [{"repo": "local", "hooks": hooks}]}))
    assert written > 0, "JSON is YAML, too"
    assert len(hooks) == len(jobs), "a hook a tool"
    identity = {"GIT_AUTHOR_NAME": "benchmark", "GIT_AUTHOR_EMAIL": "benchmark@localhost"}
    identity |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in identity.items()}
    git = shutil.which("git")
    if git is None:
        raise BenchmarkFailed("pre-commit needs git, which is not installed")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "sources")):
        done = subprocess.run(
            [git, *words], cwd=tree, capture_output=True, check=False,
            env={**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
        )  # fmt: skip
        if done.returncode != 0:
            raise BenchmarkFailed(f"git {words[0]} failed: {done.stderr[-200:]!r}")


def _compile_database(tree: Path, folder: Path) -> Path:
    """Copy some small C files, with a compile database that any tool can read."""
    chosen = [path for path in sorted(tree.rglob("*.c")) if path.stat().st_size <= COMPILED_BYTES][:COMPILED_FILES]
    if not chosen:
        raise BenchmarkFailed("the sources hold no C file that is small enough")
    entries = []
    for path in chosen:
        copy = shutil.copy(path, folder / path.name)
        entries.append({"directory": str(folder), "file": str(copy), "arguments": ["gcc", "-c", str(copy)]})
    written = (folder / "compile_commands.json").write_text(json.dumps(entries))
    assert written > 0, "one entry a file"
    assert len(entries) == len({path.name for path in chosen}), "no file hides another"
    return folder


def _over(name: str, theirs: Sequence[float], ours: Sequence[float], dimension: str) -> Figure:
    found = ratio_interval(theirs, ours)
    assert found.samples == len(ours), "pairs are of one round"
    assert found.estimate > 0, "a ratio of amounts above 0"
    return Figure(
        f"{name}, over ours", dimension, f"seconds of {name}, over ours in the same round", "ratio", "higher",
        found, {"first": tuple(theirs), "second": tuple(ours)},
    )  # fmt: skip


def peers_table(run: BenchmarkRun) -> str:
    """Return what was measured as Markdown, with the date and machine of the run."""
    of = {figure.name: figure for figure in run.figures if figure.dimension == Peers.name}
    if not of:
        raise BenchmarkFailed("; ".join(run.not_measured.values()) or "no peer was measured")
    states = (*STATES, *COMPILED_STATES)
    peers = list(dict.fromkeys(name.partition(": ")[0] for name in of))
    rows = ["| by | " + " | ".join(states) + " |", "|---" * (len(states) + 1) + "|"]
    for peer in peers:
        cells = []
        for state in states:
            seen, over = of.get(f"{peer}: {state}"), of.get(f"{peer}: {state}, over ours")
            cell = f"{mean_interval(seen.samples['values']).estimate:.2f} s" if seen else ""
            cell += (
                f", {over.interval.estimate:.2f} ({over.interval.low:.2f} to {over.interval.high:.2f})" if over else ""
            )
            cells.append(cell)
        rows.append(f"| {peer} | " + " | ".join(cells) + " |")
    assert len(rows) == len(peers) + 2, "a row a peer"
    assert OURS in peers, "we are among them"
    return "\n".join([*rows, "", *_verdicts(of), "", f"{run.environment.told()}; "
                      f"{run.load_average_after:.1f} at the end."]) + "\n"  # fmt: skip


def _verdicts(of: dict[str, Figure]) -> Iterator[str]:
    """Yield the aims beside what was measured."""
    cold = of.get("xargs: cold, over ours")
    if cold is not None:
        worst = 1 / cold.interval.low
        verdict = "met" if worst <= COLD_AIM else "missed"
        yield (
            f"- Cold, our time over that of xargs (aim: at most {COLD_AIM}): {1 / cold.interval.estimate:.2f} "
            f"({1 / cold.interval.high:.2f} to {worst:.2f}, {cold.interval.samples} rounds): {verdict}."
        )
    for peer in ("xargs", "pre-commit"):
        warm = of.get(f"{peer}: all again, over warm, over ours")
        if warm is not None:
            assert warm.interval.low > 0, "a ratio of amounts above 0"
            verdict = "met" if warm.interval.low >= WARM_AIM else "missed"
            yield (
                f"- Nothing changed, times faster than {peer} (aim: {WARM_AIM:.0f}): {warm.interval.estimate:.1f} "
                f"({warm.interval.low:.1f} to {warm.interval.high:.1f}, {warm.interval.samples} rounds): {verdict}."
            )
