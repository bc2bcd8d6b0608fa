"""The speed at which the report opens and answers in headless Chromium.

Prints medians of several openings and slider steps.

Run: python benchmarks/page_speed.py runs/digits/report.html
"""

import argparse
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

STEP = """() => new Promise(done => {
    const slider = document.getElementById("one-sigma");
    slider.value = (Number(slider.value) + 1) % (Number(slider.max) + 1);
    const start = performance.now();
    slider.dispatchEvent(new Event("input"));
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--repeats", type=int, default=11)
    arguments = parser.parse_args()
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        paints, steps = zip(
            *(one_visit(browser, arguments.page) for _ in range(arguments.repeats)), strict=True
        )
        browser.close()
    all_steps = [step for of_visit in steps for step in of_visit]
    print(f"page: {arguments.page.stat().st_size / 1e6:.2f} MB")
    for name, times in (
        ("first contentful paint", paints),
        ("slider step, to the next frame", all_steps),
    ):
        print(
            f"{name}: median {statistics.median(times):.0f} ms of {len(times)}, "
            f"slowest {max(times):.0f} ms"
        )


def one_visit(browser: Browser, path: Path) -> tuple[float, list[float]]:
    """First contentful paint in a fresh context, and ten steps of the slider, in milliseconds."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"file://{path.resolve()}")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.locator("#one").scroll_into_view_if_needed()
    steps = [page.evaluate(STEP) for _ in range(10)]
    context.close()
    return paint, steps


if __name__ == "__main__":
    main()
