"""The page of ``fsmm report`` in headless Chromium: sorting, filters, groups, theme, keyboard, print, no network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import called
from report_support import SECTIONS, make_study

pytest.importorskip("plotly")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)"
)
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``fsmm report --json`` says of the report of a small study."""
    study = make_study(tmp_path_factory.mktemp("report"))
    done = called("report", study, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(request: pytest.FixtureRequest, browser: Any, written: dict[str, Any]) -> Iterator[Any]:
    """The page without a network; the test fails where the page writes an error to the console."""
    width = getattr(request, "param", WIDTHS[0])
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on(
        "request", lambda request: faults.append(request.url) if request.url.startswith("http") else None
    )
    opened.goto(Path(written["page"]).as_uri())
    yield opened
    context.close()
    assert faults == []


def shown(page: Any, key: str) -> list[str]:
    """The sort keys of a column of the table of runs, from the top."""
    return page.evaluate(
        """(key) => {
            const at = [...document.querySelectorAll("#table thead th")].findIndex((th) => th.dataset.key === key);
            return [...document.querySelectorAll("#table tbody tr:not(.group)")].map((row) => row.cells[at].dataset.v);
        }""",
        key,
    )


def test_the_command_says_where_the_page_and_the_tables_are(written: dict[str, Any]) -> None:
    assert Path(written["page"]).name == "report.html"
    assert {Path(path).suffix for path in written["tables"]} >= {".csv", ".tex", ".md"}
    assert all(Path(path).is_file() for path in written["tables"])
    assert tuple(written["sections"]) == SECTIONS


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["nowhere"], 2, "There is no folder 'nowhere'"),
        ([".", "--cache", "none"], 2, "There is no cache 'none'"),
    ],
)
def test_a_wrong_folder_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = called("report", *words)
    assert done.returncode == code
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@needs_browser
def test_columns_are_sorted_by_keyboard_with_free_rows_first(page: Any, written: dict[str, Any]) -> None:
    accuracy = {row["run"]: row["accuracy"] for row in written["runs"]}
    free = {row["run"] for row in written["runs"] if row["free"]}
    page.select_option("#group", "")
    head = page.locator('th[data-key="accuracy"]')
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert shown(page, "run") == sorted(shown(page, "run"), key=lambda run: (run not in free, -accuracy[run]))
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    page.locator("#free-first").focus()
    page.keyboard.press("Space")
    values = [float(value) for value in shown(page, "accuracy")]
    assert values == sorted(accuracy.values())


@needs_browser
def test_rows_are_searched_filtered_and_grouped(page: Any, written: dict[str, Any]) -> None:
    page.fill("#search", "relation")
    assert sorted(shown(page, "run")) == ["relation-0", "relation-1"]
    assert f"2 of {len(written['runs'])} runs" in page.inner_text("#count")
    page.fill("#search", "")
    page.select_option('[data-filter="kind"]', "transductive")
    together = sorted(row["run"] for row in written["runs"] if row["transductive"])
    assert sorted(shown(page, "run")) == together != []
    page.select_option('[data-filter="kind"]', "")
    page.select_option("#group", "modalities")
    groups = page.locator("#table tr.group").all_inner_texts()
    counts = [
        sum(row["modalities"] == m for row in written["runs"]) for m in ("audio+frame", "frame", "audio")
    ]
    assert sorted(groups) == sorted(
        f"{m} ({count})" for m, count in zip(("audio+frame", "frame", "audio"), counts)
    )


@needs_browser
@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_every_figure_is_drawn_when_it_is_reached(page: Any) -> None:
    for place in page.locator(".plot").all():
        place.scroll_into_view_if_needed()
    page.wait_for_function('document.querySelectorAll(".plot:not([data-drawn])").length === 0')
    assert page.locator(".plot").count() == page.locator(".plot > .plot-container").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


@needs_browser
def test_the_theme_goes_from_the_systems_to_light_and_dark_and_figures_follow(page: Any) -> None:
    ground = 'getComputedStyle(document.body).getPropertyValue("background-color")'
    place = page.locator(".plot").first
    place.scroll_into_view_if_needed()
    page.wait_for_selector(".plot[data-drawn] .xtick text")
    tick = 'getComputedStyle(document.querySelector(".plot[data-drawn] .xtick text")).fill'
    page.locator("#theme").focus()
    page.keyboard.press("Enter")
    assert page.inner_text("#theme") == "Theme: light"
    light = page.evaluate(ground)
    page.keyboard.press("Enter")
    assert page.inner_text("#theme") == "Theme: dark"
    assert page.evaluate(ground) != light
    page.wait_for_function(f"({tick}) === 'rgb(230, 233, 237)'")
    page.keyboard.press("Enter")
    assert page.inner_text("#theme") == "Theme: as the system"


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(page: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme=scheme)
    page.evaluate(
        "dispatchEvent(new Event('beforeprint'))"
    )  # It draws every figure and opens what is folded.
    page.wait_for_function('document.querySelectorAll(".plot:not([data-drawn])").length === 0')
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


CONTROLS = "a[href], button, input, select, summary, [tabindex]"


@needs_browser
def test_the_tab_key_reaches_every_control_in_its_order(page: Any) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function('document.querySelectorAll(".plot:not([data-drawn])").length === 0')
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    controls = page.evaluate(
        f"""() => {{
            const all = [...document.querySelectorAll("{CONTROLS}")].filter((each) => each.checkVisibility());
            all.forEach((each, place) => {{ each.dataset.place = place; }});
            return all.length;
        }}"""
    )
    reached = []
    for _ in range(controls):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("Number(document.activeElement.dataset.place ?? -1)"))
    assert reached == list(range(controls))
    pointed = page.evaluate(
        f"""() => [...document.querySelectorAll("main *, header *")].filter((each) =>
            getComputedStyle(each).cursor === "pointer" && !each.closest("{CONTROLS}, label, .plot"))
            .map((each) => each.outerHTML)"""
    )
    assert pointed == [], "what answers to the mouse answers to the keyboard"


@needs_browser
def test_series_are_hidden_by_keyboard(page: Any) -> None:
    place = page.locator("#carried-1")
    place.scroll_into_view_if_needed()
    boxes = page.locator("#carried figure").first.locator("details.series")
    boxes.locator("summary").focus()
    page.keyboard.press("Enter")
    boxes.locator("input").first.focus()
    page.keyboard.press("Space")
    page.wait_for_function('document.getElementById("carried-1").data[0].visible === "legendonly"')


@needs_browser
def test_a_clips_picture_is_shown_while_the_pointer_rests_on_it(page: Any) -> None:
    page.locator("#map-1").scroll_into_view_if_needed()
    page.wait_for_selector("#map-1[data-drawn] .points path")
    assert page.locator("#picture").is_hidden()
    point = page.locator("#map-1 .points path").first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    page.mouse.move(box["x"] - 30, box["y"] - 30)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=8)
    page.wait_for_function('!document.getElementById("picture").hidden')
    assert page.get_attribute("#picture", "src").startswith("data:image/jpeg;base64,")
    page.mouse.move(2, 2, steps=8)
    page.wait_for_function('document.getElementById("picture").hidden')


@needs_browser
def test_a_print_has_every_figure_and_every_table(page: Any) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function('document.querySelectorAll(".plot:not([data-drawn])").length === 0')
    assert page.locator("main details:not(.series):not([open])").count() == 0
    assert len(page.pdf()) > 10_000
