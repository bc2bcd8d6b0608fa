"""Which family takes which inputs: the table of the documentation is what the code does."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from test_families import EXAMPLES, OVERLAYS, as_graphs, direction

import wobbliness
from wobbliness.perturbations import Columns
from wobbliness.perturbations.base import num_draws_of
from wobbliness.perturbations.find import perturbation_classes

PAGE = Path(__file__).parents[2] / "docs" / "perturbations.md"
PICTURES = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
INPUTS = {
    "pictures `(C, H, W)`": PICTURES,
    "tables `(d,)`": PICTURES.reshape(4, -1),
    "signals `(C, L)`": PICTURES.reshape(4, 3, 64),
    "graphs `(n, n)`": as_graphs(PICTURES),
    "token ids `(L,)`": (9 * PICTURES[:, 0]).astype(np.int64).reshape(4, -1),
}


def table():
    """Rows of the page's table: of each family, the domains that are marked."""
    text = PAGE.read_text(encoding="utf-8").partition("## Domains\n")[2].partition("\n## ")[0]
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    assert header[1:] == list(INPUTS)
    found = {}
    for names, *cells in rows:
        assert set(cells) <= {"yes", ""}
        marked = {name for name, cell in zip(header[1:], cells, strict=True) if cell}
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names), marked)
    return found


# What changes the network in place of its input takes whatever the network takes.
OF_INPUTS = [
    name for name, of in perturbation_classes().items() if ".network." not in of.__module__
]


def test_the_table_names_every_family_once():
    assert sorted(table()) == sorted(OF_INPUTS)


@pytest.mark.parametrize("name", OF_INPUTS)
def test_a_family_takes_the_marked_domains_and_says_what_it_needs_elsewhere(name):
    # To `Columns` ids are a table of integers: nothing tells the two apart.
    domains = [each for each in INPUTS if (name, each) != ("Columns", "token ids `(L,)`")]
    for domain, inputs in ((each, INPUTS[each]) for each in domains):
        made = EXAMPLES[name] if name != "Columns" else Columns(0.2)
        if hasattr(made, "overlays"):
            size = inputs[0].size
            overlays = OVERLAYS.reshape(6, -1)[:, :size].reshape(6, *inputs.shape[1:])
            made = dataclasses.replace(made, overlays=overlays)
        if domain in table()[name]:
            votes = wobbliness.measure(direction, inputs, made, 20, num_classes=4)
            assert votes.counts.sum() == 4 * min(20, num_draws_of(made) or 20)
            continue
        with pytest.raises(ValueError, match=r"^expected .*, got ") as raised:
            wobbliness.measure(direction, inputs, made, 20, num_classes=4)
        assert "\n" not in str(raised.value), domain
