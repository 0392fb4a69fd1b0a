"""The report in a real browser: it draws, obeys the keyboard and the theme, stays offline, and names are inert."""

import json
from dataclasses import replace

import pytest

from neuropil.bench.report import write_report
from tests.bench.chromium import Chromium
from tests.bench.report_example import STUDY, example

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_report(STUDY, example(), tmp_path_factory.mktemp("report") / "hlop.html")


def opened(browser, path):
    browser.said.clear()
    browser.requests.clear()
    browser.prefer("light")
    browser.width(1280)
    browser.open(path)
    if path.name == "hlop.html":
        drawn(browser)
    return browser


def drawn(browser):
    browser.run(
        "(async () => { while (!document.documentElement.dataset.drawn) await new Promise(requestAnimationFrame); })()"
    )


def test_every_figure_is_drawn_without_a_complaint_or_a_request(browser, page):
    opened(browser, page)
    assert browser.run("document.querySelectorAll('figure').length") == len(STUDY.figures)
    drawn = browser.run(
        "[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('.trace, .hm').length)"
    )
    assert all(drawn), drawn
    assert browser.said == []
    assert [url for url in browser.requests if not url.startswith(("data:", "blob:"))] == [page.as_uri()]


def test_the_policy_refuses_scripts_and_requests(browser, page):
    opened(browser, page)
    refused = browser.run("""fetch('https://example.org/').then(() => 'sent', () => 'refused')""")
    assert refused == "refused"
    ran = browser.run(
        """(() => { const s = document.createElement('script'); s.textContent = 'window.ran = true';
        document.body.append(s); return Boolean(window.ran); })()"""
    )
    assert ran is False


def test_the_seed_menu_redraws_the_matrices(browser, page):
    opened(browser, page)
    first = "document.querySelector('.plot').data[0].z[7][0]"
    mean = browser.run(first)
    browser.run(
        """(() => { const s = document.querySelector('.controls select'); s.value = '2';
        s.dispatchEvent(new Event('change')); })()"""
    )
    one = browser.run(first)
    assert one != mean
    assert one == pytest.approx(example().trials[1].arrays["accuracy_matrix"][7][0], abs=1e-5)


def test_theme_follows_the_system_and_the_button(browser, page):
    opened(browser, page)
    paper = "getComputedStyle(document.body).backgroundColor"
    ink = "document.querySelector('.plot').layout.annotations[0].font.color"
    light = browser.run(paper)
    browser.prefer("dark")
    dark = browser.run(paper)
    assert dark != light
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == light
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) == dark
    assert browser.run(ink)
    browser.run("localStorage.clear()")
    assert browser.said == []


@pytest.mark.parametrize("pixels", [360, 768])
def test_no_part_is_wider_than_a_small_screen(browser, page, pixels):
    opened(browser, page)
    browser.width(pixels)
    browser.open(page)
    assert browser.run("document.documentElement.scrollWidth") <= pixels


def test_the_keyboard_reaches_every_control(browser, page):
    opened(browser, page)
    browser.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    unreachable = browser.run(
        """[...document.querySelectorAll('a[href], button, select, summary, .scroll')]
        .filter(e => { e.focus(); return e.offsetParent && document.activeElement !== e; }).length"""
    )
    assert unreachable == 0


def test_hostile_names_are_text(browser, tmp_path):
    run = example(("hlop", "finetune"), (0, 1))
    arms = {"hlop": HOSTILE, "finetune": "finetune"}
    trials = tuple(
        replace(
            t,
            arm=arms[t.arm],
            config={HOSTILE: HOSTILE},
            metrics={**t.metrics, HOSTILE: 0.5},
            arrays={**t.arrays, "rates": {HOSTILE: [0.1, 0.2]}},
        )
        for t in run.trials
    )
    hostile = replace(
        run, arms=tuple(arms.values()), trials=trials, judgements=(), provenance={HOSTILE: {HOSTILE: HOSTILE}}
    )
    study = replace(
        STUDY,
        arms={name: STUDY.arms["hlop"] for name in (*STUDY.arms, HOSTILE)},
        summary=HOSTILE,
        citation=HOSTILE,
        notes=HOSTILE,
        figures=tuple(replace(f, title=HOSTILE, caption=HOSTILE) for f in STUDY.figures),
    )
    opened(browser, write_report(study, hostile, tmp_path / "hostile.html"))
    assert browser.run("document.title") != "owned"
    assert browser.run("document.querySelectorAll('img, .plot script').length") == 0
    assert browser.run("document.querySelectorAll('main a[href]').length") == 0
    assert HOSTILE in browser.run("document.querySelector('#citation code').textContent")
    assert browser.said == []


def test_without_javascript_the_tables_are_there(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page)
        text = browser.call("DOM.getDocument", depth=-1)
        told = json.dumps(text)
        for words in ("86.4", "Projection keeps at least five points", "seed 4", "need JavaScript"):
            assert words in told, words
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
