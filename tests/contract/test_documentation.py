"""The site of docs/: built strictly, links that lead somewhere, nothing loaded from elsewhere, and threats with tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.xdist_group("site")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


class _Page(HTMLParser):
    """What a page loads, where it leads, and where one may land on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.leads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sort a tag's addresses."""
        given = {name: value or "" for name, value in attrs}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if "src" in given:
            self.loads.append(given["src"])
        if "href" in given:
            (self.leads if tag == "a" else self.loads).append(given["href"])


def _built(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-b", "html", str(docs), str(site)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = _built(DOCS, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_link_leads_somewhere(site: Path) -> None:
    """When this fails, a reader follows a link to nothing, or to a heading that is not there."""
    pages = {file.resolve(): _Page(file.read_text()) for file in site.rglob("*.html")}
    followed = 0
    for file, page in pages.items():
        for address in page.leads:
            parts = urllib.parse.urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else file
            assert target.exists(), (file.name, address)
            if parts.fragment and target in pages:
                assert urllib.parse.unquote(parts.fragment) in pages[target].ids, (file.name, address)
                followed += 1

    assert len(pages) > 20
    assert followed > 100


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """When this fails, reading the documentation tells somebody, or needs a network."""
    loads = {address for file in site.rglob("*.html") for address in _Page(file.read_text()).loads}
    styles = "".join(file.read_text() for file in site.rglob("*.css"))

    assert loads
    assert [address for address in loads if urllib.parse.urlsplit(address).netloc] == []
    assert re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", styles) == []


def test_what_the_code_says_is_in_it(site: Path) -> None:
    """When this fails, the reference was not made, or says less than the code."""
    told = {name: (site / "reference" / f"{name}.html").read_text() for name in ("commands", "rules", "python")}

    assert "detector-pool evidence verify" in told["commands"]
    assert "P10-R1-goto" in told["rules"]
    for name in ("execute_adaptive", "optimize_allocation", "start_monitoring", "CircuitOpen"):
        assert name in told["python"], name


@pytest.mark.parametrize("wrong", ["[x](no-such-page.md)", "[x](glossary.md#no-such-heading)", "[x](#no-such-heading)"])
def test_a_link_to_nothing_fails_the_build(wrong: str, tmp_path: Path) -> None:
    """When this fails, strict mode is none."""
    small = tmp_path / "docs"
    small.mkdir()
    for name in ("conf.py", "glossary.md"):
        shutil.copy(DOCS / name, small)
    shutil.copytree(DOCS / "static", small / "static")
    page = "# Begin\n\n```{toctree}\nglossary\n```\n\n"
    (small / "index.md").write_text(page)
    sound = _built(small, tmp_path / "sound")
    (small / "index.md").write_text(page + wrong + "\n")
    broken = _built(small, tmp_path / "broken")

    assert sound.returncode == 0, sound.stderr
    assert broken.returncode != 0


def test_links_of_the_papers_at_the_top_lead_somewhere() -> None:
    """When this fails, the README sends its reader to a page that is not there."""
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for address in re.findall(r"\]\(([^)#\s]+)", (ROOT / name).read_text()):
            assert "://" in address or (ROOT / address).exists(), (name, address)


def test_each_test_that_the_threat_model_names_exists() -> None:
    """When this fails, a defence is claimed that nothing shows."""
    text = (DOCS / "threat-model.md").read_text()
    named = NAMED.findall(text)

    assert len(named) > 40
    for file, test in named:
        assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), (file, test)
    rows = [line for line in text.splitlines() if re.match(r"\| [STRIDE] \|", line)]
    assert [row for row in rows if not NAMED.search(row)] == []
    assert {row[2] for row in rows} == set("STRIDE")
