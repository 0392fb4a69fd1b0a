"""The site: what its catalogue says, how it is used in a real browser, and that it stays small and to itself."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from neuropil.bench import catalogue
from neuropil.bench.catalogue import Entry
from neuropil.bench.evidence import Row
from neuropil.bench.report import write_site
from neuropil.bench.report.site import published
from tests.bench import site_example
from tests.bench.chromium import Chromium
from tests.bench.report_example import STUDY
from tests.bench.test_report import Page
from tests.bench.test_report_browser import HOSTILE, drawn

DONE = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return site_example.write(tmp_path_factory.mktemp("built"), DONE).parent


@pytest.fixture(scope="module")
def page(site):
    return Page((site / "index.html").read_text("utf-8"))


def test_every_system_has_its_line(page):
    for entry in catalogue.entries():
        assert entry.id in page.ids
        assert entry.title in page.text


def test_standings_are_counted(page):
    # Six systems with evidence: verdicts in turn, the last one stale; one built without, the rest planned.
    assert "2 hold " in page.text
    assert "2 fail " in page.text
    assert "1 undecided" in page.text
    assert "1 stale" in page.text
    assert "1 not run" in page.text
    assert f"{len(catalogue.entries()) - DONE - 1} planned" in page.text


def test_a_line_has_claim_ours_interval_and_paper(page):
    line = page.text[page.text.index("Hebbian Learning") :][:400]
    assert "Projection keeps at least five points" in line
    assert re.search(r"12\.6 points 12\.2 to 13\.0", line)
    assert "27.6 points" in line


def test_the_papers_number_is_that_of_the_claim():
    primary, _, _, alone = STUDY.claims
    assert published(STUDY, primary) is None  # one side only is no difference
    assert published(STUDY, alone) == STUDY.published["hlop.acc"]
    both = replace(STUDY, published={"hlop.bwt": -0.01, "finetune.bwt": -0.3})
    assert published(both, primary) == pytest.approx(0.29)


def test_every_link_leads_to_a_page_of_the_site(site):
    for path in site.rglob("*.html"):
        for _, name, value in Page(path.read_text("utf-8")).attributes:
            if name in ("href", "src") and not value.startswith(("#", "data:")):
                assert (path.parent / value).resolve().is_file(), (path, value)
                assert (path.parent / value).resolve().is_relative_to(site.resolve())


def test_a_system_without_evidence_has_a_page_with_its_claims(site):
    name = catalogue.entries()[DONE].id
    text = Page((site / "systems" / f"{name}.html").read_text("utf-8")).text
    assert f"neuropil run {name}" in text
    assert all(claim.text in text for claim in STUDY.claims)
    assert not (site / "systems" / f"{catalogue.entries()[DONE + 1].id}.html").exists()


def test_a_site_of_all_systems_weighs_less_than_20_megabytes(site):
    shared = sum(path.stat().st_size for path in (site / "assets").iterdir())
    largest = max(path.stat().st_size for path in (site / "systems").iterdir())
    index = (site / "index.html").stat().st_size
    n = len(catalogue.entries())
    # Its line grows with evidence, by less than 4 kB.
    assert shared + n * largest + index + 4000 * n < 20e6


def test_leagues_with_evidence_are_comparisons(tmp_path, monkeypatch):
    site_example.install(monkeypatch, tmp_path, 1, 0)
    monkeypatch.setattr(catalogue, "entries", lambda: (Entry("hlop", "continual", "HLOP", 2024),))
    monkeypatch.setattr(catalogue, "leagues", lambda: (Entry("league", "continual", "A league", None),))
    monkeypatch.setattr("neuropil.bench.evidence.check", lambda asked: (Row(asked[0], "fresh", ""),))
    from neuropil.bench import evidence

    result = evidence.read_evidence("hlop")
    monkeypatch.setattr("neuropil.bench.evidence.read_evidence", lambda name: replace(result, id=name))
    index = write_site(tmp_path / "out")
    assert (index.parent / "comparisons" / "league.html").is_file()
    assert ("a", "href", "comparisons/league.html") in Page(index.read_text("utf-8")).attributes


def test_claims_that_hold_are_judged_again_together(tmp_path, monkeypatch):
    """Chance lets one of many hold: beside thirty that say nothing, a narrow one does not hold any more."""
    site_example.install(monkeypatch, tmp_path, 31, 0)
    known = catalogue.entries()
    monkeypatch.setattr(catalogue, "entries", lambda: known[:31])
    from neuropil.bench import evidence, statistics

    real = evidence.read_evidence
    monkeypatch.setattr("neuropil.bench.evidence.check", lambda asked: (Row(asked[0], "fresh", ""),))
    monkeypatch.setattr("neuropil.bench.report.site.write_report", lambda *given, **more: None)
    claim = replace(STUDY.claims[0], margin=0.0)
    narrow = statistics.judge(claim, [0.1, 0.2, 0.3, 0.15, 0.02], [0.0] * 5)
    nothing = statistics.judge(claim, [0.1, -0.2, 0.3, -0.15, 0.02], [0.0] * 5)
    assert (narrow.verdict, nothing.verdict) == ("holds", "undecided")

    def read_evidence(name):
        result = real(name)
        first = narrow if name == "hlop" else nothing
        return replace(result, judgements=(first, *result.judgements[1:]))

    monkeypatch.setattr("neuropil.bench.evidence.read_evidence", read_evidence)
    text = Page(write_site(tmp_path / "many").read_text("utf-8")).text
    assert "of those that hold, 0 of 1 still do" in text
    assert "holds alone" in text
    monkeypatch.setattr(catalogue, "entries", lambda: known[:1])
    text = Page(write_site(tmp_path / "one").read_text("utf-8")).text
    assert "of those that hold, 1 of 1 still do" in text
    assert "holds alone" not in text


browser_test = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def opened(browser, site):
    browser.prefer("light")
    browser.width(1280)
    browser.open(Path("/dev/null"))
    browser.said.clear()
    browser.requests.clear()
    browser.open(site / "index.html")
    return browser


def shown(browser):
    """Ids of the lines to be seen, in order."""
    return browser.run(
        "[...document.querySelectorAll('.systems tbody tr')].filter(r => r.offsetParent).map(r => r.id)"
    )


def give(browser, control, value):
    browser.run(
        f"(() => {{ const c = document.getElementById('{control}'); c.value = '{value}';"
        "c.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


@browser_test
def test_search_and_filters_leave_what_fits(opened, site):
    everything = shown(opened)
    assert len(everything) == len(catalogue.entries())
    give(opened, "search", "hebbian ORTHOGONAL spiking")
    assert shown(opened) == ["hlop"]
    give(opened, "search", "")
    give(opened, "standing", "holds")
    names = [entry.id for entry in catalogue.entries()]
    assert set(shown(opened)) == {names[0], names[3]}
    give(opened, "standing", "")
    give(opened, "room", "precision")
    assert set(shown(opened)) == {e.id for e in catalogue.entries() if e.room == "precision"}
    give(opened, "room", "")
    give(opened, "cost", "60")
    assert set(shown(opened)) == {names[0], names[5]}
    give(opened, "cost", "more")
    assert set(shown(opened)) == {names[4]}
    give(opened, "search", "no such thing")
    assert shown(opened) == []
    assert opened.run("!document.getElementById('nothing').hidden")
    opened.run("document.getElementById('clear-too').click()")
    assert shown(opened) == everything
    assert opened.said == []
    assert {url for url in opened.requests if not url.startswith("data:")} == {(site / "index.html").as_uri()}


@browser_test
def test_sorting_puts_what_has_no_value_last(opened):
    names = [entry.id for entry in catalogue.entries()]
    press = "document.querySelector('[data-sort=value] button').click()"
    opened.run(press)
    assert shown(opened)[:DONE] == names[:DONE][::-1]  # their values fall with their place
    opened.run(press)
    assert shown(opened)[:DONE] == names[:DONE]
    assert opened.run("document.querySelector('[data-sort=value]').getAttribute('aria-sort')") == "descending"
    opened.run("document.querySelector('[data-sort=title] button').click()")
    titles = opened.run(
        "[...document.querySelectorAll('.systems tbody th')].map(t => t.textContent.toLowerCase())"
    )
    assert opened.run(f"{titles!r}.every((t, i, all) => !i || all[i - 1].localeCompare(t) <= 0)")


@browser_test
def test_a_view_can_be_linked_to(opened):
    give(opened, "room", "precision")
    opened.run("document.querySelector('[data-sort=year] button').click()")
    view, before = opened.run("location.hash"), shown(opened)
    assert view == "#room=precision&sort=year"
    opened.run("document.getElementById('clear').click()")
    assert shown(opened) != before
    opened.run(
        f"new Promise(go => {{ addEventListener('hashchange', go, {{once: true}}); location.hash = '{view}'; }})"
    )
    assert shown(opened) == before


@browser_test
def test_a_page_of_a_system_draws_its_figures_from_the_shared_copy(opened, site):
    opened.open(site / "systems" / "hlop.html")
    drawn(opened)
    assert opened.run("[...document.querySelectorAll('.plot')].every(p => p.querySelector('.trace, .hm'))")
    assert opened.run("document.querySelectorAll('.plot').length") == len(STUDY.figures)
    assert opened.said == []
    assert all(url.startswith((site.as_uri(), "data:", "blob:")) for url in opened.requests), opened.requests


@browser_test
@pytest.mark.parametrize("pixels", [360, 768])
@pytest.mark.parametrize("name", ["index.html", "comparisons/compare-1.html"])
def test_no_part_is_wider_than_a_small_screen(browser, site, pixels, name):
    browser.width(pixels)
    browser.open(site / name)
    assert browser.run("document.documentElement.scrollWidth") <= pixels


@browser_test
def test_the_keyboard_reaches_every_control(opened):
    assert not opened.run(
        """[...document.querySelectorAll('a[href], button, select, input')]
        .filter(e => { e.focus(); return e.offsetParent && document.activeElement !== e; }).length"""
    )
    opened.run("document.activeElement.blur()")
    opened.call("Input.dispatchKeyEvent", type="keyDown", key="/", text="/")
    assert opened.run("document.activeElement.id") == "search"
    assert opened.run("document.activeElement.value") == ""


@browser_test
def test_colours_follow_the_system(opened):
    paper = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(paper)
    opened.prefer("dark")
    assert opened.run(paper) != light
    opened.run("document.getElementById('theme').click()")
    assert opened.run(paper) == light
    opened.run("localStorage.clear()")


@browser_test
def test_hostile_names_are_text(browser, tmp_path, monkeypatch):
    site_example.install(monkeypatch, tmp_path, 2, 1)
    real = catalogue.load_study
    hostile = tuple(entry._replace(title=HOSTILE) for entry in catalogue.entries()[:3])
    monkeypatch.setattr(catalogue, "entries", lambda: hostile)
    claims = (replace(STUDY.claims[0], text=HOSTILE), *STUDY.claims[1:])
    monkeypatch.setattr(
        catalogue,
        "load_study",
        lambda name: replace(real(name), summary=HOSTILE, claims=claims, citation=HOSTILE),
    )
    compared = site_example.Comparison("x", HOSTILE, STUDY, site_example.example(("hlop",), (0,)))
    index = write_site(tmp_path / "out", comparisons=[compared])
    for path in (index, *(index.parent / "systems").iterdir()):
        browser.said.clear()
        browser.open(path)
        assert "owned" not in browser.run("document.title.replace(/document.title=.owned./g, '')")
        assert browser.run("document.querySelectorAll('img, section script:not([type])').length") == 0
        assert browser.said == []
    assert HOSTILE in browser.run("document.body.textContent")
