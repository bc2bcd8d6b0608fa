"""C8: the batch tests on universal adversarial perturbations (section 3.2.4, Fig. 7)."""

from functools import partial

from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import area_plot, areas_text, chosen_areas, sizes_text
from wobbliness.study.figures.figure import FigureFile
from wobbliness.study.figures.roc import draw_rocs, roc_lines, roc_rows
from wobbliness.study.tables.curves import UNIVERSAL, UNIVERSAL_TARGETED
from wobbliness.study.tables.tables import Tables

MAX_UNIVERSAL_AUC = 0.8  # area below which universal perturbations are not told apart
PANELS = {
    "universal perturbations against clean": UNIVERSAL,
    "targeted ones against clean": UNIVERSAL_TARGETED,
}


def find(tables: Tables) -> Answer:
    """Reads the areas of the batch tests, untargeted and targeted, and the fooling rates."""
    rows, targeted = chosen_areas(tables, UNIVERSAL), chosen_areas(tables, UNIVERSAL_TARGETED)
    fooled = tables.universals.groupby("pattern", sort=False)[
        ["bound", "fooling_rate_on_test"]
    ].mean()
    listed = ", ".join(
        f"{name} (bound {row.bound:g}): {row.fooling_rate_on_test:.0%}"
        for name, row in fooled.iterrows()
    )
    return Answer(
        statements=(
            areas_text(rows),
            f"targeted: {areas_text(targeted)}",
            f"mean fooling rate on test points: {listed}",
        ),
        holds=bool(rows.auc["directional"] < MAX_UNIVERSAL_AUC),
        settings=f"{sizes_text(rows, 'perturbed', 'clean')} of {tables.recipe.detection_points} "
        "points",
        number=f"{rows.auc['directional']:.2f}",
        plot=area_plot(tables, UNIVERSAL, MAX_UNIVERSAL_AUC),
    )


CLAIM = Claim(
    id="C8",
    topic="Universal perturbations are not told apart",
    claim="Universal adversarial perturbations are not told from clean points this way",
    paper="AUC 0.05 (CIFAR-10 T1: more variance than clean), 0.56 (Fashion-MNIST T3) (Fig. 7)",
    rule=f"AUC of the directional test below {MAX_UNIVERSAL_AUC:g}, both norms together, "
    "untargeted, at the sigma chosen for it",
    find=find,
    quantity="area under the ROC curve (AUC) of the directional test",
    wanted=f"AUC < {MAX_UNIVERSAL_AUC:g}",
    tables=("roc", "universals"),
    figures=(
        FigureFile(
            name="fig7",
            title="Universal adversarial perturbations (paper: Fig. 7)",
            caption="ROC of the batch tests: batches with a universal perturbation against clean "
            "ones: untargeted in both norms, and targeted.",
            draw=partial(draw_rocs, panels=PANELS),
            rows=partial(roc_rows, panels=PANELS),
            chart=roc_lines,
            claims=("C8",),
            number=7,
        ),
    ),
)
