"""`report.html` in a real browser: what it shows, what a keyboard reaches, and what a hostile tree cannot do there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from compliance.formats import html
from detectors.model import RunRecord
from detectors.scan import ScanOptions, scan
from tests.compliance.conftest import HOSTILE, make_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.system

GOTO = "int f(int n)\n{\n    if (n)\n        goto out;\n    n++;\nout:\n    return n;\n}\n"
UNDEFINED = "def f(n):\n    return missing + '<img src=x onerror=alert(1)>'\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program is not None, "install chromium"
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield found
        found.close()


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """A real run over real rules, with excerpts."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "jump.c").write_text(GOTO)
    (tree / "name.py").write_text(UNDEFINED)
    return scan(ScanOptions((tree,), detectors=("power-of-ten-c", "ruff"), cluster="inline"))


def opened(browser: Browser, run: RunRecord, folder: Path, **options: object) -> Page:
    """Open the report of a run; whatever it asks of a network, and each dialog, is a failure."""
    html.write(run, folder / "report.html")
    page = browser.new_page(**options)  # type: ignore[arg-type]  # options of the browser, as its documentation has them
    page.on("dialog", lambda dialog: pytest.fail(f"it opened a dialog: {dialog.message}"))
    page.on("pageerror", lambda error: pytest.fail(f"its script failed: {error}"))
    page.on("request", lambda asked: asked.url.startswith("file:") or pytest.fail(f"it loads {asked.url}"))
    page.goto((folder / "report.html").as_uri())
    return page


def kept(page: Page, name: str) -> None:
    """Keep a picture where somebody asked for pictures."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_findings_are_filtered_by_keyboard_alone(browser: Browser, scanned: RunRecord, tmp_path: Path) -> None:
    """When this fails, who uses no mouse reads a list that he cannot narrow."""
    page = opened(browser, scanned, tmp_path)
    rows = page.locator("#findings-table tbody tr")
    told = page.locator("#told")
    assert rows.count() == len(scanned.findings)

    page.locator("input[name=text]").focus()
    page.keyboard.type("NAME.py")
    assert rows.count() == sum(item.path == "name.py" for item in scanned.findings)
    assert f"of {len(scanned.findings)} findings" in told.inner_text()
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "detector"
    page.keyboard.type("power")
    assert told.inner_text().startswith("0 of")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#findings-table tbody tr').length > 1")
    assert rows.count() == len(scanned.findings)


def test_an_excerpt_shows_the_line_and_marks_the_place(browser: Browser, scanned: RunRecord, tmp_path: Path) -> None:
    """When this fails, the reader is shown another place than the one that was found."""
    page = opened(browser, scanned, tmp_path)
    row = page.locator("tr", has_text="P10-R1-goto")
    row.locator("summary").focus()
    page.keyboard.press("Enter")
    excerpt = page.locator("#findings-table pre")
    excerpt.wait_for()

    assert excerpt.locator("mark").all_inner_texts() == ["goto"]
    assert "     3     if (n)" in excerpt.inner_text()
    kept(page, "report-excerpt")
    page.keyboard.press("Enter")
    excerpt.wait_for(state="detached")


def test_a_hostile_tree_stays_text(browser: Browser, tmp_path: Path) -> None:
    """When this fails, a file's name runs in the auditor's browser."""
    end = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    run = make_run()
    first = run.findings[0]
    worse = msgspec.structs.replace(
        first, path=end, finding=msgspec.structs.replace(first.finding, message=f"{end} {HOSTILE}", rule=f"x/{end}")
    )
    run = msgspec.structs.replace(run, findings=(worse, *run.findings[1:]))
    page = opened(browser, run, tmp_path)

    assert page.locator("script").count() == 2
    assert page.locator("img").count() == 0
    assert page.locator("#findings-table tbody tr").first.locator("td").last.inner_text() == f"{end} {HOSTILE}"
    blocked = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch (e) { return e instanceof TypeError } }"
    )
    assert blocked, "the policy lets text become markup"


def test_one_cause_is_one_row_that_names_all_who_report_it(browser: Browser, tmp_path: Path) -> None:
    """When this fails, the reader looks at one defect twice, or a tool's report of it is in no row."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.py").write_text("def f(n):\n    return eval(n)\n")
    run = scan(ScanOptions((tmp_path / "tree",), detectors=("power-of-ten-python", "bandit"), cluster="inline"))
    both = {item.finding.rule for item in run.findings if item.finding.region.start_line == 2}
    page = opened(browser, run, tmp_path)
    row = page.locator("#findings-table tbody tr", has_text="a.py:2:")

    assert len(both) > 1, both
    assert row.count() == 1
    assert "also reported by" in row.inner_text()
    assert f"of {len(run.findings)} findings" in page.locator("#told").inner_text()
    page.locator("select[name=detector]").select_option("bandit")
    assert row.count() == 1


@pytest.mark.parametrize("look", ["light", "dark", "print", "no-script"])
def test_it_can_be_read_in_every_look(browser: Browser, scanned: RunRecord, tmp_path: Path, look: str) -> None:
    """When this fails, findings are invisible at night, on paper, or where scripts are off."""
    scripted = look != "no-script"
    scheme = "dark" if look == "dark" else "light"
    page = opened(browser, scanned, tmp_path, color_scheme=scheme, java_script_enabled=scripted)
    if look == "print":
        page.emulate_media(media="print")

    assert page.locator("#findings-table tbody tr").count() == len(scanned.findings)
    assert page.locator("#filter").is_visible() is (look in {"light", "dark"})
    if scripted:
        colour = page.evaluate("getComputedStyle(document.body).color")
        assert colour == ("rgb(255, 255, 255)" if look == "dark" else "rgb(0, 0, 0)")
    kept(page, f"report-{look}")


def test_fifty_thousand_findings_are_all_reachable(browser: Browser, tmp_path: Path) -> None:
    """When this fails, a large run's report hides findings, or shows them all at once and stands still."""
    run = make_run()
    many = tuple(
        msgspec.structs.replace(run.findings[0], path=f"d{n % 500}/f{n}.c", fingerprint=f"{n:032x}")
        for n in range(50_000)
    )
    page = opened(browser, msgspec.structs.replace(run, findings=many), tmp_path)

    assert page.locator("#findings-table tbody tr").count() == 200
    assert "50,000 of 50,000 findings; 1 to 200 shown" in page.locator("#told").inner_text()
    page.locator("#next").click()
    assert "201 to 400 shown" in page.locator("#told").inner_text()
    page.locator("input[name=text]").fill("f49999.c")
    assert page.locator("#findings-table tbody tr").all_inner_texts()[0].startswith("d499/f49999.c:")
