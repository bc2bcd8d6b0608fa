"""The report in a browser: silent, whole, readable, and its numbers are those of the tables."""

import base64
import csv
import io
import shutil
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_study import small

from wobbliness.attacks.patch import trigger
from wobbliness.detectors.batches.batch_test import compare_batches
from wobbliness.detectors.guards.profile_guard import ProfileGuard
from wobbliness.detectors.guards.smoothness_guard import SmoothnessGuard
from wobbliness.detectors.model_scan.scan import scan_model
from wobbliness.reports.batch_test import write_comparison
from wobbliness.reports.guard_judgement import write_judgement
from wobbliness.reports.html import number
from wobbliness.reports.model_scan import write_scan
from wobbliness.runtime.progress import ignore_progress
from wobbliness.study.plan import plan
from wobbliness.study.records.picture_strips import pictures_of, strip
from wobbliness.study.report.point_browser import browser_data
from wobbliness.study.report.report import write_pages, write_report
from wobbliness.study.tables.curves import input_areas
from wobbliness.study.tables.labels import CLASS_NAMES
from wobbliness.study.tables.tables import form_tables
from wobbliness.study.training.networks import build_network

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium (apt-get install chromium)"
)


@pytest.fixture(scope="module")
def report(uninterrupted, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "small"
    shutil.copytree(uninterrupted[0], out)
    return write_report(out)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser, report):
    """Opens the page in a context of its own; what it asks for and says is kept."""
    contexts = []

    def open_page(**options):
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        )
        page = contexts[-1].new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.set_default_timeout(60_000)
        page.goto(f"file://{report.folder / 'report.html'}")
        return page

    yield open_page
    for context in contexts:
        context.close()


def draw_all(page):
    """Scrolls to each chart until it is drawn."""
    for figure in page.query_selector_all("figure[data-panels]"):
        figure.scroll_into_view_if_needed()
        page.wait_for_function("figure => 'done' in figure.dataset", arg=figure)


def test_it_opens_from_a_file_without_a_word_or_a_request(opened):
    page = opened()
    draw_all(page)
    page.click("#theme")
    assert page.said == []
    assert [url for url in page.asked if not url.startswith("data:")] == page.asked[:1]
    assert page.asked[0].startswith("file://")


def test_every_claim_on_the_page_is_the_row_of_its_table(opened, report):
    page = opened()
    claims = pd.read_csv(report.folder / "tables" / "claims.csv", keep_default_na=False).set_index(
        "id"
    )
    rows = {
        row.get_attribute("data-claim"): row for row in page.query_selector_all("tr[data-claim]")
    }
    assert list(rows) == list(claims.index)
    for claim, row in rows.items():
        for column in ("claim", "paper", "verdict", "settings"):
            assert (
                row.query_selector(f"[data-column={column}]").text_content()
                == claims[column][claim]
            )
        parts = [part.text_content() for part in row.query_selector_all("[data-column=ours] li")]
        assert "; ".join(parts) == claims.ours[claim]
    for section in page.query_selector_all(".tally section"):
        wanted = claims.index[
            claims.index.str.startswith("C")
            & (claims.verdict == section.get_attribute("data-verdict"))
        ]
        assert [link.get_attribute("href") for link in section.query_selector_all("a")] == [
            f"#{claim}" for claim in wanted
        ]
        assert section.get_attribute("data-count") == str(len(wanted))


def test_a_small_plot_stands_where_the_numbers_are_folded(opened, report):
    page = opened()
    for finding in report.findings:
        row = page.locator(f"#{finding.claim.id}")
        plot = row.locator("svg.small")
        assert plot.count() == (finding.plot is not None)
        if finding.plot is None:
            continue
        assert plot.get_attribute("aria-label").startswith(f"{finding.plot.quantity} over ")
        legend = row.locator(".legend span").all_text_contents()
        assert [text[2:] for text in legend[: len(finding.plot.names)]] == list(finding.plot.names)
        is_shown = [item.is_visible() for item in row.locator("[data-column=ours] li").all()]
        assert sum(is_shown) == (0 if finding.summary else 1)
        assert len(is_shown) == len(finding.statements)
    assert sum(finding.plot is not None for finding in report.findings) >= 7


def test_each_measure_of_spread_has_its_verdict_in_the_row(opened, report):
    page, claims = opened(), {finding.claim.id: finding for finding in report.findings}
    for claim, finding in claims.items():
        shown = page.locator(f"#{claim} .readings li").all_text_contents()
        assert shown == [f"{one.name}: {one.verdict}" for one in finding.readings]
        assert len(shown) == (2 if claim in {"C1", "C2"} else 0)


def test_every_network_has_the_accuracies_of_its_table(opened, report):
    page = opened()
    for row in report.tables.networks.itertuples():
        shown = page.query_selector(f'tr[data-network="{row.network}"]')
        for column in ("clean_accuracy", "backdoor_accuracy"):
            cell, value = shown.query_selector(f"[data-column={column}]"), getattr(row, column)
            assert cell.get_attribute("data-value") == ("" if pd.isna(value) else str(value))
            assert cell.text_content() == ("\N{EN DASH}" if pd.isna(value) else number(value))
        assert (shown.query_selector("svg.trigger") is None) == (row.trigger == "")


def test_every_figure_is_drawn_from_the_rows_one_can_download(opened, report):
    page = opened()
    draw_all(page)
    for figure in report.figures:
        shown = page.query_selector(f"#{figure.name}")
        assert (shown.query_selector(".chart svg") is None) == (figure.chart is None)
        if figure.rows is not None:
            link = shown.query_selector("a.csv").get_attribute("href")
            rows = list(csv.DictReader(io.StringIO(unquote(link.partition(",")[2]))))
            wanted = figure.rows(report.tables)
            assert list(rows[0]) == list(wanted.columns)
            assert len(rows) == len(wanted)


def test_every_figure_says_what_one_sees_of_which_claim(opened, report):
    page = opened()
    ours = {finding.claim.id: finding for finding in report.findings if finding.statements}
    for figure in report.figures:
        lines = [
            line.text_content() for line in page.query_selector_all(f"#{figure.name} .found li")
        ]
        wanted = [ours[claim] for claim in figure.about or figure.claims if claim in ours]
        assert lines == [f"{one.claim.id} {one.verdict}: {one.in_short}" for one in wanted]
    assert page.locator(".found li").count() >= 5


def test_links_lead_somewhere(opened):
    page = opened()
    targets = [link.get_attribute("href") for link in page.query_selector_all('a[href^="#"]')]
    assert len(targets) > 30
    assert [
        target for target in targets if page.query_selector(f'[id="{target[1:]}"]') is None
    ] == []


def test_a_link_to_a_folded_table_opens_it_each_time(opened):
    page = opened()
    folded = page.locator("details[id]:not([open])")
    before = folded.count()
    assert before > 1
    for _ in range(2):
        page.click('a[href="#table-tests"]')
        assert page.get_attribute("#table-tests", "open") is not None
        assert folded.count() == before - 1
        page.click("#table-tests > summary")
        assert page.get_attribute("#table-tests", "open") is None
    page.goto(f"{page.url.partition('#')[0]}#table-networks")
    page.wait_for_selector("#table-networks[open]")


def test_each_control_of_the_point_shows_recorded_votes(opened, report):
    page, explored = opened(), report.tables.explored
    for network in page.locator("#one-network option").all_text_contents():
        page.select_option("#one-network", label=network)
        for pattern in page.locator("#one-pattern option").all_text_contents():
            page.select_option("#one-pattern", label=pattern)
            page.select_option("#one-point", index=1)
            point = int(page.locator("#one-point option:checked").text_content().partition(",")[0])
            put_on = "" if pattern.startswith("none") else pattern.rpartition(": ")[2]
            rows = explored[
                (explored.network == network)
                & (explored.trigger == put_on)
                & (explored.point == point)
            ]
            check_sigmas(page, rows.sort_values("sigma"))


NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.mark.parametrize("names", [NAMES, None])
def test_the_point_browser_calls_classes_by_their_names(opened, report, monkeypatch, names):
    if names:
        monkeypatch.setitem(CLASS_NAMES, "digits", names)
        write_pages(report)
    try:
        page = opened()
        shown = page.locator("#one-votes li > span:first-child").all_text_contents()
        words = list(names or [f"class {label}" for label in range(10)])
        assert [text.removesuffix(" *") for text in shown] == words
        (own,) = (text.removesuffix(" *") for text in shown if text.endswith(" *"))
        points = page.locator("#one-point option").all_text_contents()
        assert points[page.locator("#one-point").evaluate("list => list.selectedIndex")].endswith(
            f", {own}"
        )
        says = page.text_content("#one-says")
        assert says.endswith(f" the point is of class {own.removeprefix('class ')} (*).")
        patterns = page.locator("#one-pattern option").all_text_contents()
        candidates = [text for text in patterns if "candidate" in text]
        named = [text for text in candidates if any(f"candidate {name}," in text for name in NAMES)]
        assert named == (candidates if names else [])
        assert candidates
    finally:
        monkeypatch.undo()
        write_pages(report)


def check_sigmas(page, rows):
    """Steps the slider by keyboard from one end to the other."""
    page.focus("#one-sigma")
    page.keyboard.press("Home")
    for _, row in rows.iterrows():
        votes = [
            int(item.get_attribute("data-votes"))
            for item in page.query_selector_all("#one-votes li")
        ]
        assert votes == row.filter(regex="^votes_").tolist()
        assert float(page.get_attribute("#one-w", "data-value")) == pytest.approx(
            row.wobbliness, abs=1e-6
        )
        assert page.text_content("#one-sigma-value") == f"{row.sigma:g}"
        page.keyboard.press("ArrowRight")


@pytest.mark.parametrize(("colours", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_to_complain_about(opened, colours, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="needs axe-playwright-python, of the extra dev",
    )
    page = opened(color_scheme=colours, viewport={"width": width, "height": 900})
    draw_all(page)
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    violations = axe.Axe().run(page).response["violations"]
    assert [
        (found["id"], [node["html"] for node in found["nodes"][:2]]) for found in violations
    ] == []


def test_a_telephone_shows_it_without_scrolling_sideways(opened):
    page = opened(viewport={"width": 360, "height": 800})
    draw_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_colours_can_be_switched(opened):
    page = opened(color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == before


def test_without_scripts_and_on_paper_every_figure_is_a_still_picture(opened, report):
    still, paper = opened(java_script_enabled=False), opened()
    draw_all(paper)
    paper.emulate_media(media="print")
    for page in (still, paper):
        assert page.locator("figure > img").count() == len(report.figures)
        assert all(picture.is_visible() for picture in page.locator("figure > img").all())
        assert not any(chart.is_visible() for chart in page.locator(".chart").all())


def test_pictures_are_of_the_points_with_their_pattern_on(opened, report, digits):
    pictures = report.tables.pictures
    assert set(pictures.kind) == set(report.tables.explored.kind)
    for row in pictures[pictures.kind == "active"].itertuples():
        expected = np.round(255 * trigger(row.trigger).apply(digits.test.images[[row.point]]))
        assert base64.b64decode(row.pixels) == expected.astype(np.uint8).tobytes()
    page = opened()
    point = int(page.locator("#one-point option:checked").text_content().partition(",")[0])
    context = "document.getElementById('one-picture').getContext('2d')"
    shown = page.evaluate(
        f"[...{context}.getImageData(0, 0, 8, 8).data].filter((_, index) => index % 4 == 0)"
    )
    row = pictures[(pictures.kind == "active") & (pictures.point == point)].iloc[0]
    assert bytes(shown) == base64.b64decode(row.pixels)
    assert page.text_content("#one-picture-title") == f"Test point {point}"


def test_the_same_image_is_there_without_a_pattern(opened, report, digits):
    page, explored = opened(), report.tables.explored
    network = next(
        name
        for name in page.locator("#one-network option").all_text_contents()
        if "checkerboard" in name
    )
    page.select_option("#one-network", label=network)
    page.select_option("#one-pattern", label="active: checkerboard")
    page.select_option("#one-point", index=3)
    with_it = page.text_content("#one-picture-title")
    page.select_option("#one-pattern", label="none")
    assert page.text_content("#one-picture-title") == with_it
    point = int(with_it.removeprefix("Test point "))
    shown = page.evaluate(
        "[...document.getElementById('one-picture').getContext('2d').getImageData(0, 0, 8, 8).data]"
    )
    assert shown[::4] == np.round(255 * digits.test.images[point]).ravel().tolist()
    here = explored[explored.network == network]
    assert set(here[here.kind == "active"].point) == set(here[here.kind == "clean"].point)


def test_untouched_points_take_no_part_in_any_test(report):
    points = report.tables.points
    assert "F1" not in set(points.claims)
    for _, of_network in points[points.batch != "parameters"].groupby("network"):
        on_clean, on_suspect = (
            set(of_network[(of_network.kind == "clean") == is_clean].point)
            for is_clean in (True, False)
        )
        assert on_clean
        assert on_suspect
        assert not on_clean & on_suspect
    assert "F1" in set(report.tables.status.claim)


def test_a_study_without_untouched_points_says_that_the_others_are_others(report, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(report.folder, folder)
    for cell in plan(small()):
        if cell.claims == ("F1",):
            (folder / "records" / f"{cell.name}.json").unlink()
    older = browser_data(form_tables(folder))
    names = {pattern["name"] for network in older["networks"] for pattern in network["patterns"]}
    assert "none (other test points)" in names
    assert "none" in {
        pattern["name"]
        for network in browser_data(report.tables)["networks"]
        for pattern in network["patterns"]
    }


def test_each_network_shows_test_images_with_its_trigger(opened, report, digits):
    page, pictures = opened(), report.tables.pictures
    points = pictures[pictures.kind == "clean"].point[:3].tolist()
    for row in report.tables.networks.itertuples():
        address = page.get_attribute(f'tr[data-network="{row.network}"] img.samples', "src")
        images = digits.test.images[points]
        images = trigger(row.trigger).apply(images) if row.trigger else images
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))
        assert np.array_equal(
            shown, np.round(255 * np.concatenate(images[:, 0], axis=1)).astype(np.uint8)
        )


@pytest.mark.parametrize(("channels", "kept"), [(1, 62), (3, 20)])
def test_a_strip_holds_the_first_pictures_to_eight_bits(channels, kept):
    images = np.random.default_rng(0).random((70, channels, 16, 16), np.float32)
    found = pictures_of(strip(images), height=16)
    assert found.shape == (kept, channels, 16, 16)
    assert np.array_equal(found, np.round(255 * images[:kept]).astype(np.uint8))
    assert strip(images.repeat(2, axis=1)[:, :2]) is None


def test_single_inputs_need_clean_ones_to_be_compared_with(report):
    points = report.tables.points
    assert input_areas(points[points.kind == "active"], report.tables.sigma).empty


def test_the_page_of_a_batch_test_holds_its_numbers_and_suits_everyone(
    browser, half_space, tmp_path
):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="needs axe-playwright-python, of the extra dev",
    )
    near = np.random.default_rng(0).random((40, 64), np.float32)
    far = near / 8
    found = compare_batches(half_space, near, far, sigmas=[0.05, 0.2], draws=60, num_classes=2)
    for name in ("one.html", "two.html"):
        write_comparison(
            found, tmp_path / name, model="model.onnx", clean="<clean>", suspect="inbox"
        )
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()
    page = browser.new_page()
    page.goto(f"file://{tmp_path / 'one.html'}")
    for row in found.at:
        cells = page.locator(f'tr[data-sigma="{row.sigma}"] td').all_text_contents()
        pvalues = (row.smoother.pvalue, row.wobblier.pvalue, row.levene.pvalue)
        assert cells == [number(value) for value in (row.clean_mean, row.suspect_mean, *pvalues)]
    assert page.get_attribute(".says", "data-verdict") == found.verdict
    assert axe.Axe().run(page).response["violations"] == []
    with pytest.raises(ValueError, match="ending in .html"):
        write_comparison(found, tmp_path / "page.txt", model="", clean="", suspect="")


@pytest.fixture(scope="module")
def scanned(digits, tmp_path_factory):
    network = build_network("small_cnn", (1, 8, 8), 10, seed=0)
    settings = {
        "sigmas": (0.2,),
        "draws": 5,
        "max_steps": 2,
        "restarts": 1,
        "progress": ignore_progress,
    }
    found = scan_model(
        network,
        digits.test.images[:120],
        triggers=[trigger("checkerboard")],
        model="<planted>",
        **settings,
    )
    folder = tmp_path_factory.mktemp("scan") / "scan"
    write_scan(found, folder)
    return found, folder / "report.html"


@pytest.mark.parametrize(("colours", "width"), [("light", 1280), ("dark", 360)])
def test_the_page_of_a_scan_is_silent_and_suits_everyone(browser, scanned, colours, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="needs axe-playwright-python, of the extra dev",
    )
    found, path = scanned
    context = browser.new_context(color_scheme=colours, viewport={"width": width, "height": 900})
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{path}")
    assert said == []
    assert [address for address in asked if not address.startswith("data:")] == [f"file://{path}"]
    assert "<planted>" in page.text_content("body")
    assert all(str(finding.trigger.name) in page.text_content("body") for finding in found.triggers)
    assert page.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    violations = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"][:2]]) for one in violations] == []
    context.close()


def brightest_column(images):
    """Three classes, by the brightest of three columns."""
    return images.reshape(len(images), -1, 3).mean(axis=1).argmax(axis=1)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Both guards' verdicts on the same inputs, with their pages."""
    folder = tmp_path_factory.mktemp("judged")
    # columns of nearly one brightness: little noise changes the label
    clean = 0.45 + 0.1 * np.random.default_rng(0).random((90, 1, 6, 6))
    stubborn = np.zeros((4, 1, 6, 6))
    stubborn[..., ::3] = 1 - 0.01 * np.arange(4)[:, None, None, None]
    inputs = np.concatenate([clean[70:], stubborn])
    names = [f"clean/{row}.png" for row in range(20)] + [f"<b>{row}</b>.png" for row in range(4)]
    settings = {"num_classes": 3, "draws": 12, "false_positive_rate": 0.1}
    about = {"names": names, "model": "<planted>", "source": "inbox/", "warnings": ["a <doubt>"]}
    found = {}
    for of in (ProfileGuard, SmoothnessGuard):
        guard = of(brightest_column, **settings).fit(clean[:70])
        verdicts = guard.judge(inputs)
        for name in ("page", "again"):
            path = folder / f"{of.__name__}-{name}.html"
            write_judgement(verdicts, inputs, path, guard=guard, **about)
        found[of.__name__] = (verdicts, names, folder / f"{of.__name__}-page.html")
    return found


@pytest.mark.parametrize("guard", ["ProfileGuard", "SmoothnessGuard"])
@pytest.mark.parametrize(("colours", "width"), [("light", 1280), ("dark", 360)])
def test_the_page_of_verdicts_holds_them_and_suits_everyone(browser, judged, guard, colours, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="needs axe-playwright-python, of the extra dev",
    )
    found, names, path = judged[guard]
    context = browser.new_context(
        color_scheme=colours, viewport={"width": width, "height": 900}, java_script_enabled=False
    )
    page, asked = context.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{path}")
    text = page.text_content("body")
    assert [address for address in asked if not address.startswith("data:")] == [f"file://{path}"]
    assert all(part in text for part in ("<planted>", "inbox/", "a <doubt>"))
    flagged = np.flatnonzero(found.is_suspicious).tolist()
    assert len(flagged) >= 4
    assert page.get_attribute(".says[data-flagged]", "data-flagged") == str(len(flagged))
    for row in flagged:
        card = page.locator(f'section[data-input="{row}"]')
        assert card.locator("h3").text_content() == names[row]
        assert tuple(card.locator("li").all_text_contents()) == found.reasons_of(row)
        assert card.locator("img").count() == 4
    assert page.locator("section").count() == len(flagged)
    for row in range(len(found)):
        cells = page.locator(f'tr[data-row="{row}"] td').all_text_contents()
        assert (cells[0] == "suspicious") == found.is_suspicious[row]
        assert cells[1:3] == [str(found.undisturbed_label[row]), number(float(found.pvalue[row]))]
    context.close()
    # with scripts, for the checks alone
    context = browser.new_context(color_scheme=colours, viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(f"file://{path}")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    violations = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"][:2]]) for one in violations] == []
    context.close()


def test_the_same_verdicts_give_the_same_page(judged):
    for _, _, path in judged.values():
        again = path.with_name(path.name.replace("page", "again"))
        assert path.read_bytes() == again.read_bytes()
