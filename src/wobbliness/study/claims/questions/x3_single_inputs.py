"""X3: every input by itself, network by network, by W and by the top softmax score."""

import pandas as pd

from wobbliness.reports.small_plot import Series, SmallPlot
from wobbliness.study.claims.base import Answer, Claim
from wobbliness.study.claims.reading import with_prefix
from wobbliness.study.tables.tables import Tables


def find(tables: Tables) -> Answer:
    """Reads the areas under the ROC curves over single inputs."""
    size = tables.inputs.iloc[0]
    statements = [
        _of_score(str(score), rows) for score, rows in tables.inputs.groupby("score", sort=False)
    ]
    return Answer(
        statements=with_prefix("mean AUC ", statements),
        holds=None,
        settings=f"{tables.inputs.network.nunique()} networks, {size.num_positives} triggered and "
        f"{size.num_negatives} clean points each",
        plot=_plot(tables.inputs[tables.inputs.is_chosen]),
    )


def _plot(chosen: pd.DataFrame) -> SmallPlot:
    """Returns the areas of both scores on each network, at the chosen sigma."""
    # networks of one name may have been measured for several batch sizes
    areas = chosen.groupby(["network", "score"], sort=False).auc.mean().unstack()
    networks = list(dict.fromkeys(chosen.network))
    series = [
        Series(name=str(score), values=tuple(areas[score].reindex(networks)))
        for score in dict.fromkeys(chosen.score)
    ]
    return SmallPlot(
        quantity="area under the ROC curve",
        over="networks",
        ticks=tuple(str(number) for number in range(1, len(networks) + 1)),
        series=tuple(series),
        bounds=(0, 1),
        joined=False,
    )


def _of_score(score: str, rows: pd.DataFrame) -> str:
    text = f"{score} {_spread(rows[rows.is_chosen].auc)} at the chosen sigma"
    if score != "W":  # the top score needs no noise: it is the same at every sigma
        return text
    return f"{text}, {_spread(rows.groupby('network').auc.max())} at each network's best"


def _spread(values: pd.Series) -> str:
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


CLAIM = Claim(
    id="X3",
    topic="Single inputs, and the top score beside W",
    claim="Does W tell single triggered inputs from clean ones, and better than the top softmax "
    "score?",
    paper="not in the paper",
    rule="reported",
    find=find,
    measured_with="C7",
    tables=("inputs",),
)
