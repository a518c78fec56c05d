"""One foreign process: bounded, cut off, and ended with everything it started."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import ANY

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import sandbox
from detectors.circuit_breaker import Breaker, BreakerPolicy
from detectors.detector import Tool
from detectors.errors import DetectorWroteFiles, ToolCrashed, ToolError, ToolMissing, ToolTimedOut
from detectors.model import Completed, FileReport, NotAnalysed
from detectors.sandbox import Limits, ShadowTree, analyse_with_tool, network_isolated, run, safe_name


def _run(folder: Path, code: str, **limits: float) -> Completed:
    cwd = folder / "src"
    cwd.mkdir(exist_ok=True)
    return run("tool", [sys.executable, "-I", "-c", code], cwd, Limits(**limits), 1)  # type: ignore[arg-type]


def test_gives_back_code_output_and_time(tmp_path: Path) -> None:
    """What the parser reads must be what the tool wrote."""
    done = _run(tmp_path, "import sys; print('out'); sys.stderr.write('err'); sys.exit(7)")

    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err")
    assert done.seconds > 0


def test_the_environment_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret, a proxy or a PYTHONPATH of the caller must not reach a tool."""
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    done = _run(tmp_path, "import os; print(sorted(os.environ)); print(os.environ['HOME'])")

    assert b"SECRET_TOKEN" not in done.stdout
    assert b"PYTHONPATH" not in done.stdout
    assert str(tmp_path / "home").encode() in done.stdout


def test_a_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    """A child of a tool that hangs must not run on."""
    code = (
        "import subprocess, sys, time;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "open('../child', 'w').write(str(p.pid)); time.sleep(600)"
    )
    with pytest.raises(ToolTimedOut, match="1 files"):
        _run(tmp_path, code, wall_s=2)

    child = int((tmp_path / "child").read_text())
    _, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=10)
    assert not alive


def test_what_a_tool_leaves_behind_is_ended(tmp_path: Path) -> None:
    """A process that outlives a good end would use the machine for ever."""
    code = (
        "import subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print(p.pid)"
    )
    child = int(_run(tmp_path, code).stdout)

    _, alive = psutil.wait_procs([psutil.Process(child)] if psutil.pid_exists(child) else [], timeout=10)
    assert not alive


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("x = bytearray(900 << 20)", {"memory_bytes": 300 << 20}),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", {"file_size_bytes": 1 << 20}),
        ("while True: pass", {"cpu_s": 1}),
        ("import os; os.kill(os.getpid(), 11)", {}),
    ],
)
def test_limits_hold(tmp_path: Path, code: str, limits: dict[str, float]) -> None:
    """Memory, output, processor time: whoever takes more is ended, not waited for."""
    try:
        done = _run(tmp_path, code, wall_s=60, **limits)
    except ToolCrashed as problem:
        done = Completed(problem.exit_code_seen, b"", b"", 0.0)

    assert done.exit_code != 0
    assert len(done.stdout) <= 1 << 20


@pytest.mark.skipif(not network_isolated(), reason="this system allows no namespaces; `doctor` says so")
def test_there_is_no_network(tmp_path: Path) -> None:
    """A tool, or code that hijacked it, must reach nobody, not even this machine."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = _run(tmp_path, f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)")

    assert done.exit_code == 1
    assert b"OSError" in done.stderr or b"Error" in done.stderr


def test_a_program_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """The message must say what is missing. With launchers before it, it ends with a code of its own."""
    (tmp_path / "src").mkdir()
    try:
        told = run("tool", ["/nowhere/tool"], tmp_path / "src", Limits(), 1).stderr.decode()
    except ToolMissing as problem:
        told = str(problem)

    assert "/nowhere/tool" in told


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_safe_names_are_safe(path: str) -> None:
    """No name of the tree may be an option, leave the folder, or be a configuration file."""
    name = safe_name(path)

    assert name.isascii()
    assert not any(part in {"", ".", ".."} or part.startswith(("-", ".")) for part in name.split("/"))
    assert name.rpartition("/")[2].lower() not in sandbox.CONFIGURATION
    assert safe_name(path) == name


@pytest.mark.parametrize(
    "path",
    ["-rf.c", "a/-x.c", ".bandit", "a/ruff.toml", "a//b.c", "../x.c", "a b.c", "ü.c", "pyproject.toml", "x" * 500],
)
def test_other_names_become_neutral_but_keep_their_suffix(path: str) -> None:
    """A tool chooses by suffix."""
    name = safe_name(path)

    assert name.startswith("renamed/")
    assert name.endswith(".c") == path.endswith(".c")


def test_a_shadow_tree_holds_the_files_and_is_gone_afterwards() -> None:
    """Scratch folders that stay fill the disk."""
    with ShadowTree({"a/b.c": b"1", "-x.c": b"2"}) as shadow:
        files = [file for file in shadow.folder.rglob("*") if file.is_file()]
        assert sorted(file.read_bytes() for file in files) == [b"1", b"2"]
        assert shadow.changed() == ()
        folder = shadow.scratch
    assert not folder.exists()


class _Cat(Tool):
    """Reports every file whose text does not say otherwise."""

    name = "cat"
    distribution = "pip"
    languages = frozenset({"text"})
    limit_s = 20.0
    code = "import sys; [print(n) for n in sys.argv[1:]]"

    def command(self, files: Sequence[str]) -> list[str]:
        return [sys.executable, "-I", "-c", self.code, *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        if completed.exit_code:
            raise ToolCrashed(self.name, completed.exit_code, completed.stderr.decode())
        return {name: FileReport() for name in completed.stdout.decode().split("\n") if name}


def test_a_batch_is_halved_down_to_the_file_at_fault() -> None:
    """One poisoned file must not cost its neighbours."""

    class Picky(_Cat):
        code = "import sys; [print(n) if open(n).read() != 'die' else sys.exit(9) for n in sys.argv[1:]]"

    sources = {f"f{number}.txt": b"die" if number in (3, 12) else b"ok" for number in range(20)}
    answers = analyse_with_tool(Picky(), sources)

    assert set(answers) == set(sources)
    bad = {path: answer.reason for path, answer in answers.items() if isinstance(answer, NotAnalysed)}
    assert bad == {"f3.txt": "crashed", "f12.txt": "crashed"}
    assert all(str(Path("/tmp")) not in answer.detail for answer in answers.values() if isinstance(answer, NotAnalysed))


def test_a_tool_that_fails_on_everything_is_left_alone(tmp_path: Path) -> None:
    """A broken tool must not be run for each of a thousand files, and none of them may look clean."""
    log = tmp_path / "runs"

    class Broken(_Cat):
        code = f"import sys; open({str(log)!r}, 'a').write('run ' + sys.argv[1] + chr(10)); sys.exit(9)"

    breaker = Breaker(BreakerPolicy(failures=3))
    answers = analyse_with_tool(Broken(), {f"f{number}.txt": b"" for number in range(40)}, breaker)
    runs = log.read_text().splitlines()
    later = analyse_with_tool(Broken(), {"later.txt": b""}, breaker)

    assert len(answers) == 40
    assert {answer.reason for answer in answers.values() if isinstance(answer, NotAnalysed)} == {"breaker-open"}
    assert (len(runs), runs[-1]) == (4, "run harmless.txt")
    assert later == {"later.txt": NotAnalysed("later.txt", "cat", "breaker-open", ANY)}
    assert log.read_text().splitlines() == runs


def test_files_that_make_a_tool_fail_open_no_breaker() -> None:
    """Whoever writes the sources could keep a tool from all of them by a few that it dies on."""

    class Picky(_Cat):
        code = "import sys; [print(n) if open(n).read() != 'die' else sys.exit(9) for n in sys.argv[1:]]"

    sources = {f"f{number:02}.txt": b"die" if number < 9 else b"ok" for number in range(12)}
    answers = analyse_with_tool(Picky(), sources, Breaker(BreakerPolicy(failures=2)))

    assert {path for path, answer in answers.items() if answer == FileReport()} == {"f09.txt", "f10.txt", "f11.txt"}
    assert {answer.reason for answer in answers.values() if isinstance(answer, NotAnalysed)} == {"crashed"}


def test_a_file_that_is_not_accounted_for_is_not_clean() -> None:
    """Four of eight common tools exit with 0 for a file that they did not read."""

    class Silent(_Cat):
        code = "import sys; [print(n) for n in sys.argv[2:]]"

    answers = analyse_with_tool(Silent(), {"a.txt": b"", "b.txt": b""})

    assert isinstance(answers["a.txt"], NotAnalysed)
    assert answers["a.txt"].reason == "not-reported"
    assert answers["b.txt"] == FileReport()


def test_output_that_cannot_be_read_is_the_files_fault_in_the_end() -> None:
    """A parser that stumbles must not end the run."""

    class Garbled(_Cat):
        def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
            raise KeyError("results")

    answers = analyse_with_tool(Garbled(), {"a.txt": b"", "b.txt": b""})

    assert {answer.reason for answer in answers.values() if isinstance(answer, NotAnalysed)} == {"crashed"}


@pytest.mark.parametrize("act", ["open('new', 'w')", "__import__('os').remove(sys.argv[1])"])
def test_a_tool_that_writes_is_an_error_that_names_it(act: str) -> None:
    """Adding or removing files counts as writing, too."""

    class Writer(_Cat):
        code = f"import sys; {act}"

    with pytest.raises(DetectorWroteFiles, match="cat"):
        analyse_with_tool(Writer(), {"a.txt": b""})


def test_a_missing_tool_makes_its_files_not_analysed() -> None:
    """Never clean, and the message says how to get it."""

    class Missing(_Cat):
        distribution = "no-such-distribution"

    answer = analyse_with_tool(Missing(), {"a.txt": b""})["a.txt"]

    assert isinstance(answer, NotAnalysed)
    assert (answer.reason, "pip install" in answer.detail) == ("tool-missing", True)


def test_long_lists_of_names_are_split() -> None:
    """The kernel takes 128 KiB a string and 2 MiB in all; many long names are several commands."""
    sources = {f"{'d' * 100}/{'e' * 100}/{number}.txt": b"" for number in range(800)}

    assert all(answer == FileReport() for answer in analyse_with_tool(_Cat(), sources).values())


def test_end_all_ends_what_runs_and_does_not_try_again() -> None:
    """An interrupt must not be answered by halving the batch and starting over."""

    class Sleeper(_Cat):
        code = "import time; time.sleep(600)"
        limit_s = 600.0

    problems: list[BaseException] = []

    def work() -> None:
        try:
            analyse_with_tool(Sleeper(), {"a.txt": b"", "b.txt": b""})
        except ToolError as problem:
            problems.append(problem)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 30
    while not sandbox._RUNNING._groups and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    sandbox.end_all()
    thread.join(30)

    assert not thread.is_alive()
    assert len(problems) == 1
    assert not [
        p for p in psutil.Process(os.getpid()).children(recursive=True) if "sleep(600)" in " ".join(p.cmdline())
    ]
