"""Pictures of a report for the documentation, in docs/figures/page/.

python tools/page_pictures.py runs/fashion-mnist/report.html runs/digits/report.html

The second page, by default the first, is the one whose points are shown.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parents[1] / "docs" / "figures" / "page"


def main() -> None:
    """Light, dark, narrow and print; each drawn as a reader would see it."""
    address, of_points = (
        f"file://{Path(argument).resolve()}" for argument in (sys.argv[1], sys.argv[-1])
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, width, colours in (
            ("light", 1120, "light"),
            ("dark", 1120, "dark"),
            ("narrow", 360, "light"),
        ):
            page = browser.new_page(viewport={"width": width, "height": 760}, color_scheme=colours)
            page.goto(of_points if name == "dark" else address)
            if name == "dark":
                _go_to_point(page)
            page.screenshot(path=FOLDER / f"{name}.png")
        page = browser.new_page(viewport={"width": 760, "height": 1075}, color_scheme="dark")
        page.goto(address)
        page.emulate_media(media="print")
        page.screenshot(path=FOLDER / "print.png")
        browser.close()


def _go_to_point(page: Page) -> None:
    """One point with the trigger the network was trained on."""
    page.evaluate("document.getElementById('point').scrollIntoView()")
    page.wait_for_timeout(200)


if __name__ == "__main__":
    main()
