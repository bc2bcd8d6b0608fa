"""Report of a batch test: one self-contained page."""

from collections.abc import Sequence
from pathlib import Path

from wobbliness.detectors.batches.batch_results import BatchComparison
from wobbliness.detectors.inputs.noise_level import shown_level, what_differs
from wobbliness.reports.html import number, page_environment
from wobbliness.runtime.files import write_named


def write_comparison(
    found: BatchComparison,
    path: str | Path,
    *,
    model: str,
    clean: str,
    suspect: str,
    warnings: Sequence[str] = (),
) -> None:
    """Writes the page of a comparison; the same comparison gives the same bytes.

    The page is self-contained: it requests nothing.

    Args:
        found: the comparison.
        path: of the page, ending in `.html`.
        model: what was tested, for people.
        clean: where the clean images are from.
        suspect: where the suspect images are from.
        warnings: what is said before the verdict.

    Raises:
        ValueError: the path does not end in `.html`.
    """
    file = checked_page(path)
    rows = (*found.at, *(() if found.box_mix is None else (found.box_mix.at,)))
    largest = max(max(row.clean_mean, row.suspect_mean) for row in rows) or 1.0
    template = page_environment().get_template("comparison.html")
    page = template.render(
        found=found,
        rows=rows,
        largest=largest,
        model=model,
        clean=clean,
        suspect=suspect,
        warnings=warnings,
        number=number,
        shown=shown_level,
        what=what_differs(row.sigma for row in found.at),
    )
    write_named(file, lambda out: out.write_text(page, encoding="utf-8"))


def checked_page(path: str | Path) -> Path:
    """Returns the path of a page; raises ValueError where it does not end in `.html`."""
    if Path(path).suffix != ".html":
        raise ValueError(f"expected a page ending in .html, got {path}")
    return Path(path)
