"""
A third party's detectors, for tests of the engine: a rule, a tree rule, facts, and tools that misbehave on purpose.

`install(folder)` makes them a package with an entry point, as `pip install` would; put `folder` on PYTHONPATH.
"""

from __future__ import annotations

from pathlib import Path

MODULE = '''
from __future__ import annotations
import os, signal, sys, time
from pathlib import Path
from detectors.detector import Facts, FileRule, Tool, TreeRule
from detectors.model import FileReport, Finding, Region

TEXT = frozenset({"text", "c", "python"})

class Bad(FileRule):
    """
    The word bad.

    Why: it is bad.
    Instead: write good.
    Not found: worse.
    Source: none.
    """
    id = "TP-bad"
    level = "error"
    detector = "third-party"
    languages = TEXT
    examples = ("good", "bad  # expect: TP-bad")

    def check(self, parsed):
        for number, line in enumerate(parsed.text.split("\\n"), 1):
            if "leave-me" in line:
                sys.exit(0)
            if "crash-me" in line:
                raise RuntimeError("told to")
            if "kill-me" in line and "victim" in line:
                os.kill(os.getpid(), signal.SIGKILL)
            if "sleep-once" in line and (gate := Path(line.split()[1])).exists():
                gate.with_suffix(".begun").write_text(str(os.getpid()))
                while gate.exists():
                    time.sleep(0.01)
            if "bad" in line:
                yield self.finding(Region(number, line.index("bad") + 1), "bad word")

class Words(Facts):
    id = "tp-words"
    detector = "third-party"
    languages = TEXT

    def collect(self, parsed):
        return sorted(set(parsed.text.split()))

class Twice(TreeRule):
    """
    The word twin in more than one file.

    Why: one is enough.
    Instead: remove one.
    Not found: triplets.
    Source: none.
    """
    id = "TP-twin"
    level = "warning"
    detector = "third-party"
    languages = TEXT
    needs = ("tp-words",)
    examples = ("a", "b")

    def check_tree(self, facts):
        having = [path for path, words in facts["tp-words"].items() if "twin" in words]
        for path in having if len(having) > 1 else ():
            yield path, self.finding(Region(1), "twin")

class Shell(Tool):
    """A tool that does what the files say."""
    name = "shell-tool"
    distribution = "pip"
    languages = frozenset({"text"})
    limit_s = 20.0

    def command(self, files):
        return [sys.executable, "-I", str(Path(__file__).with_name("third_party_tool.py")), *files]

    def parse(self, completed, sources):
        answered = completed.stdout.decode().split("\\n")
        return {name: FileReport((Finding("shell/ran", "note", "ran", Region(1)),)) for name in sources if name in answered}
'''

TOOL = """
import os, signal, sys, time
from pathlib import Path
for name in sys.argv[1:]:
    text = Path(name).read_text(errors="replace")
    if "tool-dies" in text or "broken" in Path(__file__).parts:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "tool-silent" in text:
        continue
    if "tool-writes" in text:
        os.chmod(name, 0o600)
        Path(name).write_text("changed")
    if "tool-waits" in text:
        gate = Path(text.split()[1])
        gate.with_suffix(".begun").write_text(str(os.getpid()))
        while gate.exists():
            time.sleep(0.01)
    print(name)
"""


def install(folder: Path, module: str = MODULE) -> Path:
    """Write the package and its entry point below `folder`, and return `folder`."""
    (folder / "third_party_detectors.py").write_text(module)
    (folder / "third_party_tool.py").write_text(TOOL)
    info = folder / "third_party_detectors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-detectors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[detector_pool.detectors]\nthird_party = third_party_detectors\n")
    return folder
