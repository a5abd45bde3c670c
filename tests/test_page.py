"""The page in a real browser, off line: what it shows, what its sliders compute, and who can use it."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from forecast import backtest_figures, cli, page, page_records, reports, runs, views
from forecast.worldviews import load_worldviews
from page_store import MILESTONES, NAMES, ROOT, fill, made

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
KNOWN = load_worldviews(ROOT / "priors")
TITLES = {n: m.title for n, m in MILESTONES.items()}


def command(*words) -> int:
    """Run a command line as the script does."""
    kept, sys.argv = sys.argv, ["forecast", *map(str, words)]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = kept
    return 0


@pytest.fixture(scope="session")
def store(tmp_path_factory, selection) -> Path:
    return fill(tmp_path_factory.mktemp("store"), selection)


@pytest.fixture(scope="session")
def file(store, tmp_path_factory) -> Path:
    to = tmp_path_factory.mktemp("page") / "report.html"
    assert (
        command("report", "--store", store, "-o", to, "--data", ROOT / "data", "--priors", ROOT / "priors")
        == 0
    )
    return to


@pytest.fixture(scope="session")
def stored(store):
    return views.load(store, KNOWN)


@pytest.fixture(scope="session")
def parts(stored, selection, archive) -> page.Parts:
    return page.Parts(*stored, selection.rows, dict(archive.indicators["title"]), TITLES)


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        needed = os.environ.get("FORECAST_BROWSER") == "required"
        (pytest.fail if needed else pytest.skip)("no Chromium here; install the package chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def visit(browser):
    """Open a file off line and wait until its charts are drawn; what went wrong is in `page.problems`."""
    contexts = []

    def opened(file: Path, anchor: str = "", width: int = 1280, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.problems, tab.asked = [], []
        tab.on("console", lambda m: tab.problems.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.on("request", lambda request: tab.asked.append(request.url))
        tab.goto(file.as_uri() + anchor)
        tab.wait_for_selector("body[data-ready=yes]")
        return tab

    yield opened
    for context in contexts:
        context.close()


def overflow(tab) -> int:
    """Pixels by which the page is wider than its window."""
    return tab.evaluate("document.documentElement.scrollWidth - innerWidth")


def numbers(tab, table: str) -> list[list[float]]:
    """What a table says, in full precision."""
    rows = f"[...document.querySelectorAll('#{table} tbody tr')]"
    return tab.evaluate(
        f"{rows}.map(r => [...r.querySelectorAll('[data-value]')].map(c => +c.dataset.value))"
    )


def set_odds(tab, odds) -> None:
    for k, value in enumerate(odds):
        tab.locator(f"#odds-{k}").fill(str(value))


# The file ---------------------------------------------------------------------------------------------


def test_the_page_is_one_small_file_that_names_nothing_to_load(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.encode()) < 5e6
    outside = re.compile(
        r"<(?:script|img|link|iframe|object|embed|source)[^>]*(?:src|href)\s*=\s*[\"'](?!data:)", re.I
    )
    assert not outside.search(text.split('<script type="application/json"')[0])
    assert not re.search(r"@import|url\((?!#)", (Path(page.__file__).parent / "page.css").read_text())


def test_the_same_store_gives_the_same_page(parts):
    assert page.render(parts) == page.render(parts)


def test_it_opens_from_disk_without_an_error_and_asks_for_nothing_else(visit, file):
    tab = visit(file)
    assert tab.problems == [] and [url for url in tab.asked if not url.startswith("data:")] == [file.as_uri()]
    assert tab.locator(".chart svg").count() == tab.locator(".chart").count() >= 8
    for text in (
        *KNOWN,
        *NAMES,
        "Your own prior",
        "Weights over time",
        "never",
        "Diagnostics and provenance",
    ):
        assert text in tab.inner_text("main")


def test_every_chart_has_a_finding_a_source_and_a_text_alternative(visit, file):
    tab = visit(file)
    for figure in tab.locator("figure").all():
        assert len(figure.locator("h3").inner_text()) > 20
        assert "Source" in figure.locator("figcaption").inner_text()
        assert len(figure.locator(".chart").get_attribute("aria-label")) > 20


def test_the_first_paint_takes_less_than_a_second(visit, file):
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    # The least of some: other work of the machine only adds.
    assert min(visit(file).evaluate(paint) for _ in range(3)) < 1000


# Your own prior ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("odds", [(25, 25, 25, 25), (1, 97, 40, 3), (0, 10, 0, 90)])
@pytest.mark.parametrize("worldview", ["neutral", "rapid"])
def test_sliders_give_what_the_engine_computes(visit, file, stored, odds, worldview):
    tab = visit(file)
    tab.select_option("#assumptions", worldview)
    set_odds(tab, odds)
    one = next(s for s in stored[0] if s.worldview.name == worldview)
    prior = dict(zip(NAMES, np.array(odds) / sum(odds), strict=True))
    record = reports.record(one.tree, one.manifest, "own", prior)
    shown = np.array(numbers(tab, "own-table"))
    expected = [[d["prior"], d["posterior"]] for d in record["dynamics"].values()]
    assert np.abs(shown - expected).max() < 1e-6
    titles = {TITLES[m["id"]]: m for m in record["milestones"]}
    names = tab.locator("#own-milestones tbody th").all_text_contents()
    for name, cells in zip(names, numbers(tab, "own-milestones"), strict=True):
        by = titles[name]["by"]
        want = [by[f"{year}-01-01"] for year in page.KEY_YEARS] + [titles[name]["never"]]
        assert np.abs(np.array(cells) - want).max() < 1e-6


def test_the_error_of_your_posterior_is_about_the_engines(visit, file, stored):
    tab = visit(file)
    one = next(s for s in stored[0] if s.worldview.name == "neutral")
    texts = tab.locator("#own-table tbody tr td:nth-child(3)").all_text_contents()
    for text, d in zip(texts, one.record["dynamics"].values(), strict=True):
        assert float(text.split("±")[1]) == pytest.approx(100 * d["posterior_se"], rel=0.25, abs=0.06)


def test_a_link_carries_the_setting(visit, file):
    tab = visit(file)
    tab.select_option("#assumptions", "plateau")
    set_odds(tab, (5, 60, 30, 5))
    link = tab.input_value("#own-link")
    there = visit(file, "#" + link.split("#")[1])
    assert numbers(there, "own-table") == numbers(tab, "own-table")
    assert there.input_value("#assumptions") == "plateau"


@pytest.mark.parametrize(
    "anchor", ["#prior=explosive:x", "#prior=%00&assumptions=nobody", "#prior=explosive:900"]
)
def test_a_broken_link_opens_the_page_as_it_is(visit, file, anchor):
    tab = visit(file, anchor)
    assert tab.problems == [] and len(numbers(tab, "own-table")) == len(NAMES)


def test_no_odds_at_all_is_said_and_computes_nothing(visit, file):
    tab = visit(file)
    set_odds(tab, (0, 0, 0, 0))
    assert "some odds" in tab.inner_text("#own-verdict") and numbers(tab, "own-table") == []
    tab.click("[data-preset=rapid]")
    assert [row[0] for row in numbers(tab, "own-table")] == pytest.approx(list(KNOWN["rapid"].odds.values()))


def test_the_verdict_follows_the_odds(visit, file):
    tab = visit(file)
    for odds, word in (((1, 99, 1, 1), "settled"), ((25, 25, 25, 25), "open")):
        set_odds(tab, odds)
        assert word in tab.inner_text("#own-verdict")


# Everybody can use it ---------------------------------------------------------------------------------


def test_a_keyboard_is_enough(visit, file):
    tab = visit(file)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.locator(".chip").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator(".chip").first.get_attribute("aria-pressed") == "true"
    before = numbers(tab, "own-table")
    tab.locator("#odds-0").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.input_value("#odds-0") == "26" and numbers(tab, "own-table") != before
    assert tab.get_attribute("#odds-0", "aria-valuetext") == "26 %"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "odds-1"


def test_a_chosen_dynamic_stands_out_in_every_chart(visit, file):
    tab = visit(file)
    faint = "[...document.querySelectorAll('.chart [opacity]')].filter(m => +m.getAttribute('opacity') < 0.2).length"
    before = tab.evaluate(faint)
    tab.locator(".chip").nth(1).click()
    tab.wait_for_function(f"{faint} > {before + 10}")


def test_other_assumptions_change_charts_and_their_words(visit, file):
    tab = visit(file)
    titles = tab.locator("#paths h3").all_text_contents()
    tab.select_option("#assumptions", "plateau")
    assert tab.locator("#paths h3").all_text_contents() != titles
    assert "Worldview plateau" in tab.inner_text("#fig-path-W-notes")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(visit, file, scheme):
    found = Axe().run(visit(file, scheme=scheme)).response["violations"]
    bad = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
    assert bad == []


@pytest.mark.parametrize("width", [375, 768])
def test_nothing_is_wider_than_the_window(visit, file, width):
    tab = visit(file, width=width)
    assert overflow(tab) <= 0
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert overflow(tab) <= 0


def test_rows_are_filtered(visit, file):
    tab = visit(file)
    tab.fill("#filter", "METR")
    shown = tab.locator("#rows tbody tr:visible")
    assert 0 < shown.count() < tab.locator("#rows tbody tr").count()
    assert all("metr" in text.lower() for text in shown.all_text_contents())


# What goes in -----------------------------------------------------------------------------------------

HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><img src=x onerror='window.pwned=1'>",
    "\"'`${1}{{ 7*7 }}&lt;b&gt;",
    "\u202eright to left\u2066 אבג",
    "x" * 400,
)


def test_hostile_strings_are_text(visit, parts, tmp_path):
    bad = "".join(HOSTILE)
    rows = parts.rows.copy()
    rows["entity"], rows["source_title"], rows["unit"] = bad, bad, bad
    rows["source_url"] = "javascript:window.pwned=1"
    last = [one._replace(worldview=replace(one.worldview, title=bad)) for one in parts.last]
    said = explained()
    said[0]["words"] = [bad]
    scored = backtested()
    for one in (*scored["scores"], *scored["skill"]):
        one["worldview"] = bad
    hostile = page.Parts(
        last,
        parts.dated,
        rows,
        dict.fromkeys(parts.indicator_titles, bad),
        dict.fromkeys(parts.milestones, bad),
        said,
        asked(bad),
        scored,
    )
    file = tmp_path / "hostile.html"
    page.write(page.render(hostile), file)
    tab = visit(file, width=375)
    assert tab.evaluate("window.pwned") is None and tab.problems == []
    assert tab.locator("img, a[href^=javascript]").count() == 0
    for text in HOSTILE:
        assert text in tab.text_content("#rows tbody tr") and text in tab.text_content("#headline .card")
        assert text in tab.text_content("#own-milestone option")
    assert overflow(tab) <= 0
    tab.locator("#fig-path-e").hover()
    assert tab.evaluate("window.pwned") is None


def test_a_failed_fit_shows_no_number(visit, parts, selection, tmp_path):
    folder = runs.save(
        tmp_path, "2026-06-30", "neutral", "ad", *made("neutral", 0.0, selection, {NAMES[1]: ["ESS 3"]})
    )
    tree, manifest = runs.load(folder)
    record = reports.record(tree, manifest, "neutral", KNOWN["neutral"].odds)
    failed = views.Stored(tree, manifest, record, KNOWN["neutral"])
    file = tmp_path / "failed.html"
    page.write(page.render(parts._replace(last=[failed, *parts.last[1:]], dated=[])), file)
    tab = visit(file)
    card = tab.inner_text("#headline .card >> nth=0")
    assert "ESS 3" in card and "%" not in card and tab.problems == []
    assert tab.input_value("#assumptions") == "plateau"
    alone = parts._replace(last=[failed], dated=[])
    page.write(page.render(alone), file)
    assert "failed its gate" in visit(file).inner_text("#own-verdict")


def number(value: float, se: float = 0.1) -> dict[str, float]:
    return {"value": value, "se": se}


def explained() -> list[dict]:
    account = {
        "decided": number(0.2),
        "learnt": number(0.3),
        "absorbed": {
            "total": number(6.0),
            "timing": number(2.0),
            "inputs": number(1.0),
            "production": number(1.0),
            "measurement": number(2.0),
        },
        "calibration": number(3.0),
        "unassigned": number(0.1),
        "rate": number(0.92),
    }
    pairs = [
        {
            **{"a": NAMES[0], "b": NAMES[1], "log_bayes_factor": number(1.2), "frozen": number(4.5)},
            **{"absorbed": number(3.3), "verdict": "not identified", "pin_down": [{"name": "mu_D"}]},
        }
    ]
    return [
        {"worldview": w, "as_of": "2026-06-30", "account": account, "pairs": pairs, "rule": "A rule."}
        for w in KNOWN
    ]


def asked(title: str = "Two years of plateau") -> list[dict]:
    weights = {
        n: {"before": number(0.25), "after": number(0.25 + 0.1 * (k - 1.5))} for k, n in enumerate(NAMES)
    }
    return [{"worldview": w, "title": title, "weights": weights, "note": ""} for w in KNOWN]


def backtested(skill: float = 0.5) -> dict:
    about = {"category": "all", "rows": 30, "origins": 4}
    names = [("none", "trend"), *((w, f) for w in KNOWN for f in ("mixture", NAMES[0]))]
    covered = {"covered_50": 0.4, "covered_80": 0.7, "covered_95": 0.9}
    scores = [
        about
        | covered
        | {"worldview": w, "forecaster": f, "horizon": h, "log_score": -2, "log_score_se": 0.1}
        for w, f in names
        for h in ("all", "0-3m", "3-6m")
    ]
    known = {"log_score_low": skill - 0.2, "log_score_high": skill + 0.2}
    unknown = {"log_score_low": None, "log_score_high": None}
    against = [
        about
        | error
        | {"worldview": w, "forecaster": f, "horizon": h, "baseline": "trend", "log_score": skill}
        for w, f in names[1:]
        for h, error in (("0-3m", known), ("3-6m", unknown))
    ]
    origins = [{"as_of": day} for day in ("2024-12-31", "2025-06-30")]
    return {"truth": "2026-06-30", "origins": origins, "scores": scores, "skill": against}


def test_what_other_commands_say_has_its_sections(visit, store, tmp_path):
    names = {"explained": explained(), "scenarios": asked(), "backtest": backtested()}
    options = []
    for name, said in names.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
        options += [f"--{name}", tmp_path / f"{name}.json"]
    to = tmp_path / "whole.html"
    assert command("report", "--store", store, "-o", to, *options) == 0
    tab = visit(to)
    assert tab.problems == []
    assert "92 % of the information" in tab.inner_text("#absorption")
    assert "not identified" in tab.text_content("#absorption")
    assert "takes" in tab.inner_text("#scenarios h3")
    skill, coverage = (h.inner_text() for h in tab.query_selector_all("#backtest h3"))
    # One of two horizons has an interval, under each worldview.
    assert skill == "Mixtures beat simple baselines in 3 of 3 comparisons with an interval and lose in 0"
    assert coverage == "80 % intervals are too narrow: 70 to 70 % of values lay inside"
    assert "+0.50 (+0.30 to +0.70)" in tab.text_content("#backtest")


@pytest.mark.parametrize(("skill", "said"), [(0.1, "beat simple baselines in 0 of"), (-0.5, "lose in 3")])
def test_skill_is_claimed_only_where_the_interval_is_above_zero(skill, said):
    assert said in backtest_figures.skill(backtested(skill))["title"]["text"]


def test_a_backtest_without_skill_or_scores_says_so():
    nothing = backtested() | {"scores": [], "skill": []}
    section = page_records.backtest(nothing, lambda *_: {})
    assert section["figures"] == [] and "was scored" in section["text"]


def test_scenarios_without_an_answer_say_so_in_a_table():
    section = page_records.scenarios([asked()[0] | {"weights": None, "note": "a refit can"}], lambda *_: {})
    assert section["figures"] == [] and section["tables"][0]["rows"][0][1:] == ["none", "a refit can"]


@pytest.mark.parametrize(
    "words, says",
    [
        (("report", "-o", "nowhere/report.html"), "no folder nowhere"),
        (("report", "--worldview", "neutrl"), "did you mean 'neutral'"),
        (("report", "--explained", "missing.json"), "cannot be read"),
        (("report", "--explained", "pyproject.toml"), "not JSON"),
        (("plot", "absorption"), "--explained"),
        (("plot", "weights", "-o", "x.pdf"), ".svg or .png"),
    ],
)
def test_bad_input_is_one_line(store, monkeypatch, capsys, words, says):
    monkeypatch.chdir(ROOT)
    assert command(*words, "--store", store) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line


def test_json_of_another_command_is_refused(store, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    (tmp_path / "x.json").write_text('[{"worldview": "neutral"}]')
    assert (
        command("report", "--explained", tmp_path / "x.json", "--store", store, "-o", tmp_path / "x.html")
        == 2
    )
    assert "entry 1 lacks 'as_of'" in capsys.readouterr().err and not (tmp_path / "x.html").exists()


# Figures as files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what, words",
    [
        ("weights", ("Largest move", "probability", *KNOWN)),
        ("paths", ("overall pace W", "By 2030", *NAMES)),
        ("milestones", ("never", "By 2030", *KNOWN)),
        ("indicators", ("rung 3", "No benchmark enters", "minutes")),
    ],
)
def test_a_figure_is_drawn_from_the_store(store, monkeypatch, tmp_path, what, words):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "figure.svg"
    assert command("plot", what, "--store", store, "-o", file) == 0
    text = file.read_text(encoding="utf-8")
    assert all(word in text for word in (*words, "Source"))


def test_a_figure_of_absorption_and_a_bitmap(store, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    (tmp_path / "said.json").write_text(json.dumps(explained()))
    file = tmp_path / "figure.png"
    assert command("plot", "absorption", "--explained", tmp_path / "said.json", "-o", file) == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_one_date_is_drawn_as_prior_and_posterior(store, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "now.svg"
    assert command("plot", "weights", "--worldview", "rapid", "--store", store, "-o", file) == 0
    assert "leads under rapid" in file.read_text(encoding="utf-8")
