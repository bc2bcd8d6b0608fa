"""Report of a model scan: a self-contained page, pictures, JSON and a table."""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wobbliness.detectors.model_scan.results import CandidateFinding, PatternEffect, Scan
from wobbliness.reports.html import data_uri, number, page_environment
from wobbliness.reports.scan_pictures import pattern_label, pattern_png, picture_png, w_png, w_svg
from wobbliness.reports.tables import write_csv
from wobbliness.runtime.files import CannotWrite, write_atomically, write_json

PAGE, JSON_FILE, TABLE, PICTURES = "report.html", "scan.json", "scan.csv", "pictures"
# candidates whose pictures are on the page; those with the smallest masks, where there are more
MAX_CARDS = 40
KIND, SCHEMA_VERSION = "wobbliness scan", 1
_COUNTS = ("draws", "seed", "num_crafted_on", "num_clean", "num_suspect")


@dataclass(frozen=True, kw_only=True)
class Card:
    """A pattern and its pictures.

    Attributes:
        name: for people.
        file: prefix of the names of its files.
        effect: what the pattern does.
        finding: of the class, where the pattern is a candidate.
        pictures: PNG files by suffix of their names: the pattern, an image without it and with it.
    """

    name: str
    file: str
    effect: PatternEffect
    finding: CandidateFinding | None
    pictures: dict[str, bytes]


def write_scan(scan: Scan, folder: str | Path, *, warnings: Sequence[str] = ()) -> Path:
    """Writes `report.html`, `scan.json`, `scan.csv` and pictures into a folder.

    The same scan gives the same bytes.

    The picture of a pattern holds its mask as alpha and can be a suspected trigger of another scan
    (`trigger_from_png`). All files are first written to a temporary folder next to it, so that an
    unfinished scan is never seen.

    Args:
        scan: what was found.
        folder: new, or empty, or of a scan, which is replaced.
        warnings: what the page says first.

    Returns:
        The path of the page, which is self-contained.

    Raises:
        ValueError: the folder holds something else.
        CannotWrite: the disk is full, or the folder cannot be written to.
    """
    folder = checked_scan_folder(folder)
    # Next to the folder, hidden: on the same disk, so that moving is a rename.
    staging = folder.resolve().with_name(f".{os.getpid()}-scan")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        (staging / PICTURES).mkdir(parents=True)
        _write_all(scan, staging, warnings)
        _move(staging, folder)
    except OSError as error:
        raise CannotWrite(f"cannot write {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder / PAGE


def _write_all(scan: Scan, folder: Path, warnings: Sequence[str]) -> None:
    # Pictures are made once, for their files and for the page.
    cards = _cards(scan)
    _write_pictures(scan, cards, folder / PICTURES)
    write_atomically(folder / TABLE, lambda file: write_csv(scan.frame(), file))
    page = _page(scan, cards, warnings)
    write_atomically(folder / PAGE, lambda file: file.write_text(page, encoding="utf-8"))
    write_json(folder / JSON_FILE, scan_json(scan))


def _move(staging: Path, folder: Path) -> None:
    """Moves a whole scan to where an earlier one, or nothing, was.

    Files of the earlier scan are removed; files that are not its own stay.
    """
    # a new or empty folder: one atomic rename
    if not folder.exists() or not any(folder.iterdir()):
        os.replace(staging, folder.resolve())
        return
    # files of a scan alone are removed: the folder may hold a user's own
    pictures = folder / PICTURES
    pictures.mkdir(exist_ok=True)
    for pattern in ("candidate-*.png", "trigger-*.png", "w.*"):
        for left in list(pictures.glob(pattern)):
            left.unlink()
    # The JSON last: a folder with it is known as a scan's.
    for file in sorted(staging.rglob("*.*"), key=lambda path: path.name == JSON_FILE):
        os.replace(file, folder / file.relative_to(staging))


def checked_scan_folder(folder: str | Path) -> Path:
    """Returns the folder; raises ValueError where it holds something else than a scan."""
    path = Path(folder)
    # Only a folder with a scan's JSON may be written over.
    if path.exists() and (
        not path.is_dir() or (any(path.iterdir()) and not (path / JSON_FILE).is_file())
    ):
        raise ValueError(f"expected a new or empty folder, or one of a scan, got {path}")
    if (path / PICTURES).is_symlink():  # what is removed from there would be removed elsewhere
        raise ValueError(f"expected a folder of pictures in {path}, got a link: {path / PICTURES}")
    return path


def scan_json(scan: Scan) -> dict[str, Any]:
    """Returns a scan in strict JSON.

    Absent values are null, and so is an infinite anomaly index (`is_flagged` tells).
    """
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "model": scan.model,
        "to_look_at": list(scan.to_look_at()),
        "limits": list(scan.limits()),
        "why_no_candidates": scan.why_no_candidates,
        "failed_classes": [row.target_class for row in scan.candidates if row.candidate is None],
        "flagged_classes": [row.target_class for row in scan.candidates if row.is_flagged],
        "level": scan.level,
        **_verdict_json(scan),
        **{name: getattr(scan, name) for name in _COUNTS},
        "patterns": _patterns_json(scan),
    }


def _verdict_json(scan: Scan) -> dict[str, Any]:
    found = scan.comparison
    return {
        "level_each": None if found is None else found.level,
        "sigma": None if found is None else found.sigma,
        "power": None if found is None else found.power,
    }


def _patterns_json(scan: Scan) -> list[dict[str, Any]]:
    # As objects: columns with a missing value would turn integers into floats.
    rows = scan.frame().astype(object).to_dict("records")
    return [{str(name): _json_value(value) for name, value in row.items()} for row in rows]


def _json_value(value: Any) -> Any:
    """Returns the value; None where JSON cannot express it."""
    # NaN is the only value that differs from itself.
    if (
        value is None
        or value != value
        or str(value) == "<NA>"
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        return None
    return value


def _cards(scan: Scan) -> list[Card]:
    candidates = [
        _card(finding.effect, f"candidate-{finding.target_class}", finding)
        for finding in scan.candidates
        if finding.effect is not None
    ]
    return candidates + [
        _card(effect, f"trigger-{index}", None)
        for index, effect in enumerate(scan.triggers, start=1)
    ]


def _card(effect: PatternEffect, file: str, finding: CandidateFinding | None) -> Card:
    # Three pictures: the pattern alone, an image without it, the image with it.
    channels, height, width = effect.clean.shape
    pictures = {
        "": pattern_png(effect.trigger, (channels, height, width)),
        "-clean": picture_png(effect.clean),
        "-triggered": picture_png(effect.stamped),
    }
    name = pattern_label(effect, is_candidate=finding is not None)
    return Card(name=name, file=file, effect=effect, finding=finding, pictures=pictures)


def _write_pictures(scan: Scan, cards: Sequence[Card], folder: Path) -> None:
    for card in cards:
        for ending, content in card.pictures.items():
            (folder / f"{card.file}{ending}.png").write_bytes(content)
    if cards:
        (folder / "w.png").write_bytes(w_png(scan))
        (folder / "w.svg").write_bytes(w_svg(scan))


def _mask_l1(card: Card) -> float:
    # A class whose search found no mask is shown first.
    found = None if card.finding is None else card.finding.candidate
    return 0.0 if found is None else found.mask_l1


def _page(scan: Scan, cards: Sequence[Card], warnings: Sequence[str]) -> str:
    candidates = [card for card in cards if card.finding is not None]
    shown = sorted(candidates, key=_mask_l1)
    return (
        page_environment()
        .get_template("scan.html")
        .render(
            scan=scan,
            warnings=warnings,
            found=scan.comparison,
            cards=shown[:MAX_CARDS] + [card for card in cards if card.finding is None],
            num_left_out=max(0, len(candidates) - MAX_CARDS),
            sigmas=sorted(scan.clean_w),
            figure=data_uri(w_svg(scan), "image/svg+xml") if cards else None,
            png=lambda content: data_uri(content, "image/png"),
            number=number,
            name_of=pattern_label,
        )
    )
