"""X2: implanted triggers and Neural Cleanse candidates of other classes, on the same networks."""

from functools import partial

from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import area_plot, areas_text, chosen_areas, sizes_text
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.figures.roc import draw_rocs, roc_lines, roc_rows
from wobbliness.study.tables.curves import IMPLANTED_FIRST, IMPLANTED_SMALLEST
from wobbliness.study.tables.tables import Tables

PANELS = {
    "implanted against first candidates": IMPLANTED_FIRST,
    "implanted against smallest candidates": IMPLANTED_SMALLEST,
}


def find(tables: Tables) -> Answer:
    """Reads the areas of the batch tests against each form of candidates."""
    areas = {question: chosen_areas(tables, question) for question in PANELS.values()}
    recorded = {question: rows for question, rows in areas.items() if len(rows)}
    sizes = [sizes_text(rows, "implanted", "candidate") for rows in recorded.values()]
    return Answer(
        statements=tuple(
            f"against {question.negatives[0]}: {areas_text(rows)}"
            for question, rows in recorded.items()
        )
        or ("no candidates",),
        holds=None,
        settings=sizes[-1] if sizes else "",
        plot=area_plot(tables, next(iter(recorded), IMPLANTED_FIRST)),
    )


CLAIM = Claim(
    id="X2",
    topic="Implanted trigger or crafted candidate?",
    claim="Does W tell implanted triggers from Neural Cleanse candidates of other classes?",
    paper="the paper calls it unanswerable (section 4)",
    rule="reported",
    find=find,
    measured_with="C9",
    tables=("roc",),
    figures=(
        FigureFile(
            name="implanted",
            title="Implanted triggers and Neural Cleanse candidates",
            caption="ROC of the batch tests: batches with the implanted trigger against batches "
            "with a crafted candidate of another class, on the same networks.",
            draw=partial(draw_rocs, panels=PANELS),
            rows=partial(roc_rows, panels=PANELS),
            chart=roc_lines,
            claims=("C9",),
            about=("C9", "X2"),
        ),
    ),
)
