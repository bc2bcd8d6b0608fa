"""Output of the commands, as text for people or JSON for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.table import Table

from wobbliness.classifiers.execution import Execution
from wobbliness.detectors.inputs.noise_level import Level, shown_level, what_differs
from wobbliness.images import ImageSet
from wobbliness.reports.tables import write_csv, write_parquet
from wobbliness.runtime.files import write_named
from wobbliness.runtime.terminal import console, say, say_json
from wobbliness.sampling.counting.changed_votes import ChangedVotes
from wobbliness.sampling.plan import perturbation_of
from wobbliness.sampling.votes import Sweep, Votes

if TYPE_CHECKING:
    from wobbliness.bench.results import Benchmark, DecisionResult, NetworkResult
    from wobbliness.detectors.batches.batch_results import (
        BatchComparison,
        BoxMixTest,
        SigmaComparison,
    )
    from wobbliness.detectors.detect import Detection
    from wobbliness.detectors.guards.detection_results import Judgement, QuickVerdicts
    from wobbliness.detectors.guards.files.guard_files import Guard
    from wobbliness.detectors.model_scan.results import Scan
    from wobbliness.study.claims.base import Finding
    from wobbliness.study.report.report import Report

WIDE = 120  # characters from which on a terminal holds the paper's figures next to ours


def write_votes(sweep: Sweep, out: Path, image_set: ImageSet) -> None:
    """Writes votes and W, one row per image and sigma, as Parquet or CSV by the file's ending.

    `label` is the class predicted most often, `given_label` the one that the images' source states,
    where it states one. Perturbations other than Gaussian noise have their names in a column.
    """
    named = any(votes.sigma is None for votes in sweep.votes)
    write_table(
        pd.concat(
            [_votes_frame(votes, image_set, named=named) for votes in sweep.votes],
            ignore_index=True,
        ),
        out,
    )


def write_table(frame: pd.DataFrame, out: Path) -> None:
    """Writes rows as Parquet or CSV by the file's ending."""
    # The ending was checked before the work.
    write = write_parquet if out.suffix == ".parquet" else write_csv
    write_named(out, lambda file: write(frame, file))


def _votes_frame(votes: Votes, image_set: ImageSet, *, named: bool) -> pd.DataFrame:
    radius = np.nan if votes.sigma is None else votes.certified_radius()
    counts = {f"votes_{index}": votes.counts[:, index] for index in range(votes.counts.shape[1])}
    # Absent, not empty, where the source states no labels.
    given = {} if image_set.labels is None else {"given_label": image_set.labels}
    return pd.DataFrame(
        {
            "image": range(len(votes)),
            "name": image_set.names,
            **given,
            **({"perturbation": votes.perturbation} if named else {}),
            "sigma": np.nan if votes.sigma is None else votes.sigma,
            "draws": votes.draws,
            "label": votes.label,
            "wobbliness": votes.wobbliness,
            "standard_error": votes.standard_error,
            "certified_radius": radius,
            **counts,
        }
    )


def print_sweep(sweep: Sweep, warnings: Sequence[str] = (), *, as_json: bool) -> None:
    """Prints a line for each sigma, or JSON with the votes of each image."""
    if as_json:
        measurements = [_votes_json(votes) for votes in sweep.votes]
        say_json({"measurements": measurements, "warnings": list(warnings)})
        return
    say(
        f"{'sigma':>8} {'images':>8} {'draws':>6} {'mean W':>8} {'q25':>7} {'median':>7} "
        f"{'q75':>7} {'W = 0':>7}"
    )
    for votes in sweep.votes:
        say(_votes_line(votes))
    # One line for each way the passes were run.
    for execution in {execution for votes in sweep.votes for execution in votes.executions}:
        say(_execution_line(execution))
    for votes in sweep.votes:
        if votes.changed_votes is not None:
            say(_changed_line(votes, votes.changed_votes))


def _changed_line(votes: Votes, found: ChangedVotes) -> str:
    what = votes.perturbation if votes.sigma is None else f"sigma {votes.sigma:g}"
    return (
        f"changed votes at {what}: {found.share:.2%}, at most {found.upper_bound():.2%} with 95 % "
        f"confidence ({found.num_changed} of {found.num_audited} that were audited)"
    )


def _votes_line(votes: Votes) -> str:
    w = votes.wobbliness
    q25, median, q75 = _quartiles(w)
    what = votes.perturbation if votes.sigma is None else f"{votes.sigma:g}"
    # The widths of the heads that `print_sweep` prints.
    return (
        f"{what:>8} {len(w):>8} {votes.draws:>6} {w.mean():>8.4f} {q25:>7.4f} "
        f"{median:>7.4f} {q75:>7.4f} {(w == 0).mean():>7.1%}"
    )


def _execution_line(execution: Execution) -> str:
    what = "" if execution.backend == "onnxruntime" else "not compiled: "
    why = f"; {what}{execution.reason}" if execution.reason else ""
    precision = "" if execution.precision is None else f"; precision {execution.precision}"
    return (
        f"run by {execution.backend} on {execution.device}, {execution.block_size} copies at "
        f"a time{why}{precision}"
    )


def _votes_json(votes: Votes) -> dict[str, Any]:
    return {
        "sigma": votes.sigma,
        "perturbation": votes.perturbation,
        "draws": votes.draws,
        "seed": votes.seed,
        "label": votes.label.tolist(),
        "wobbliness": votes.wobbliness.tolist(),
        "standard_error": votes.standard_error.tolist(),
        "counts": votes.counts.tolist(),
        "executions": [execution.as_record() for execution in votes.executions],
        **_changed_fields(votes.changed_votes),
    }


def _changed_fields(found: ChangedVotes | None) -> dict[str, Any]:
    """Returns what an audit found; nothing where all votes are those of float32."""
    if found is None:
        return {}
    derived = {"share": found.share, "upper_bound": found.upper_bound()}
    return {"changed_votes": asdict(found) | derived}


def print_comparison(
    found: "BatchComparison", warnings: Sequence[str] = (), *, as_json: bool
) -> None:
    """Prints a line for each sigma, the paper's test, and the verdict; or JSON with all of it."""
    if as_json:
        # What is derived first, then every field.
        said: dict[str, Any] = {"verdict": found.verdict, "explanation": found.explanation()}
        said |= {"is_powerful": found.is_powerful, "pvalue": found.pvalue}
        said |= _comparison_fields(found)
        if (corrected := found.corrected_destinations) is not None:
            words = {"verdict": corrected.verdict, "corrected_pvalue": corrected.pvalue}
            said["destinations"] |= words
        say_json(said | {"warnings": list(warnings)})
        return
    _print_comparison_rows(found)
    say(f"verdict: {found.verdict} (level {found.level:g}, power {found.power:.2f})")
    say(found.explanation())
    if found.precision is not None:
        say(f"precision {found.precision}")


def _comparison_fields(found: "BatchComparison") -> dict[str, Any]:
    """Returns all fields; where a perturbation is no noise, the names of all of them, too."""
    fields = asdict(found)
    if found.precision is None:
        del fields["precision"]
    if found.box_mix is not None:
        fields["box_mix"]["at"] |= _with_name("sigma", found.box_mix.at.sigma)
        fields["spoke"] = [shown_level(level) for level in found.spoke]
    if what_differs(row.sigma for row in found.at) == "sigma":
        return fields
    fields |= _with_name("sigma", found.sigma) | _with_name("levene_sigma", found.levene_sigma)
    fields["at"] = [row | _with_name("sigma", row["sigma"]) for row in fields["at"]]
    return fields


def _with_name(key: str, level: Level) -> dict[str, Any]:
    """Returns a sigma, None for another perturbation, and the name under a key like it."""
    is_name = isinstance(level, str)
    name = level if is_name else perturbation_of(level).name
    return {key: None if is_name else level, key.replace("sigma", "perturbation"): name}


def _print_comparison_rows(found: "BatchComparison") -> None:
    what, starred = what_differs(row.sigma for row in found.at), _starred(found)
    width = 8 if what == "sigma" else max(map(len, (what, *starred)))
    say(
        f"{what:>{width}} {'clean W':>8} {'suspect':>8} {'p smoother':>11} {'lower in':>9} "
        f"{'p wobblier':>11} {'p Levene':>9}"
    )
    for row, name in zip(found.at, starred, strict=True):
        say(f"{name:>{width}} {_comparison_line(row)}")
    if found.num_for_sigma:
        say(
            f"* {what} of the verdict, L of Levene's test, both chosen on {found.num_for_sigma} "
            "clean images"
        )
    if found.box_mix is not None:
        _print_box_mix(found, found.box_mix, width)
    if (corrected := found.corrected_destinations) is not None:
        of = f"corrected for {found.num_tests_in_words} (Holm)"
        say(f"destinations: {corrected.verdict} (p {corrected.pvalue:.2g}, {of})")


def _print_box_mix(found: "BatchComparison", box_mix: "BoxMixTest", width: int) -> None:
    """Prints the second test, and the p-values of both, corrected."""
    say(f"{'*box mix':>{width}} {_comparison_line(box_mix.at)}")
    say(
        f"* under box mix, too: {box_mix.num_overlays} clean images are mixed with, "
        f"{box_mix.num_clean} others compared with"
    )
    smoother, wobblier = found.smoother_pvalues.min(), found.wobblier_pvalues.min()
    say(
        f"  corrected for {found.num_tests_in_words} (Holm): p smoother {smoother:.2g}, p wobblier "
        f"{wobblier:.2g}"
    )


def _starred(found: "BatchComparison") -> list[str]:
    """Returns the sigmas and names of the rows, marked where a test is read."""
    return [
        "*" * (row.sigma == found.sigma)
        + "L" * (row.sigma == found.levene_sigma)
        + shown_level(row.sigma)
        for row in found.at
    ]


def _comparison_line(row: "SigmaComparison") -> str:
    return (
        f"{row.clean_mean:>8.4f} {row.suspect_mean:>8.4f} "
        f"{row.smoother.pvalue:>11.2g} "
        f"{row.smoother.effect_size:>9.0%} {row.wobblier.pvalue:>11.2g} "
        f"{row.levene.pvalue:>9.2g}"
    )


def print_scan(
    scan: "Scan", page: Path | None, warnings: Sequence[str] = (), *, as_json: bool
) -> None:
    """Prints a line for each pattern, what stands out, and what that does not say; or JSON."""
    if as_json:
        from wobbliness.reports.model_scan import scan_json  # with matplotlib

        report = None if page is None else str(page)
        say_json(scan_json(scan) | {"report": report, "warnings": list(warnings)})
        return
    _print_patterns(scan)
    why = [f"no candidates: {scan.why_no_candidates}"] if scan.why_no_candidates else []
    for line in (*why, *scan.to_look_at()):
        say(line)
    for line in scan.limits():
        say(f"note: {line}")
    if page is not None:
        say(f"report: {page}")


def _print_patterns(scan: "Scan") -> None:
    heads = ("mask L1", "anomaly", "sent", "mean W", "clean W", "p smoother")
    columns = " ".join(f"{head:>{len(head) + 1}}" for head in heads)
    say(f"{'pattern':<20} {'class':>5} {columns}  W against clean")
    frame = scan.frame()
    # Of each class the chosen candidate; suspected triggers are not chosen among others.
    for row in frame[frame.is_chosen.fillna(True).astype(bool)].itertuples():
        say(_pattern_line(row))


def _pattern_line(row: Any) -> str:
    target = "-" if pd.isna(row.target_class) else str(row.target_class)
    # A class whose search failed has no measurement.
    if pd.isna(row.sigma):
        return f"{row.pattern:<20} {target:>5} none found"
    numbers = (
        f"{_or_dash(row.mask_l1, '.1f'):>8} {_or_dash(row.anomaly_index, '.1f'):>8} "
        f"{_or_dash(row.sent_share, '.0%'):>5} "
        f"{row.suspect_mean:>7.4f} {row.clean_mean:>8.4f} {row.pvalue_smoother:>11.2g}"
    )
    flag = ", likely target" if row.is_flagged is True else ""
    return f"{row.pattern:<20} {target:>5} {numbers}  {row.verdict}{flag}"


def _or_dash(value: float, form: str) -> str:
    return "-" if pd.isna(value) else format(value, form)


def print_benchmark(benchmark: "Benchmark", *, as_json: bool) -> None:
    """Prints tables of ratios, rates and draws, or JSON."""
    if as_json:
        say_json(benchmark.as_json())
        return
    say(
        f"forward passes per second, {benchmark.draws} for each image; medians of "
        f"{benchmark.repeats}; {benchmark.device}"
    )
    for result in benchmark.networks:
        _print_network(result)
    for decision in benchmark.decisions:
        _print_decision(decision, benchmark.draws)


def _print_network(result: "NetworkResult") -> None:
    say()
    say(
        f"{result.network}: {result.flops / 1e6:.1f} MFLOP a pass, {result.sgemm_share:.0%} "
        "of SGEMM's rate end to end"
    )
    for rate in result.rates:
        memory = "" if rate.peak_bytes is None else f"   peak {rate.peak_bytes / 2**20:6.0f} MiB"
        say(f"  {rate.contender:<10} {rate.median:>12,.0f}{memory}")
    said = [f"{name} {_ratio_text(result.ratio(name))}" for name in ("loop", "ART", "bare")]
    say("  ours / " + ", ".join(said))
    if result.precision is not None:
        ratio_text = _ratio_text(result.ratio("checked"))
        say(f"  ours / precision checked {ratio_text} ({result.precision})")
    for name, ratio in result.family_ratios().items():
        say(f"  {name} / bare {ratio:.2f}")
    for name, ratio in result.method_ratios().items():
        say(f"  {name}: ours / published loop {ratio:.2f}")


def _ratio_text(ratio: float | None) -> str:
    # A contender of an extra that is not installed was not run.
    return "not installed" if ratio is None else f"{ratio:.2f}"


def _print_decision(decision: "DecisionResult", draws: int) -> None:
    say()
    say(
        f"decide, {decision.question}: {decision.mean_draws:.0f} draws on average against "
        f"{draws} ({draws / decision.mean_draws:.1f} times fewer), "
        f"{decision.undecided:.1%} undecided, "
        f"{decision.equal:.1%} of the decided as all draws say (digits, threshold "
        f"{decision.threshold:.3f})"
    )


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
    q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
    return float(q25), float(median), float(q75)


def print_report(report: "Report", *, as_json: bool, is_written: bool = True) -> None:
    """Prints the table of claims, and the path of the page where it could be written."""
    from wobbliness.study.report.report import PAGE  # with matplotlib and scipy.stats

    page = str(report.folder / PAGE) if is_written else None
    if as_json:
        claims = [_claim_fields(finding) for finding in report.findings]
        say_json({"claims": claims, "report": page})  # one line for each study
        return
    # As wide as the terminal, or as COLUMNS says.
    terminal = console()
    terminal.print(_claims_table(report, is_narrow=terminal.width < WIDE))
    if page is not None:
        say(f"report: {page}")


def _claim_fields(finding: "Finding") -> dict[str, Any]:
    """Returns the fields of a finding and its claim, in the order in which they are printed."""
    claim = finding.claim
    return {
        "claim": claim.claim,
        "ours": finding.ours,
        "verdict": finding.verdict,
        "settings": finding.settings,
        "id": claim.id,
        "topic": claim.topic,
        "paper": claim.paper,
        "rule": claim.rule,
        "number": finding.number,
        "readings": {reading.name: reading.verdict for reading in finding.readings},
    }


def _claims_table(report: "Report", *, is_narrow: bool) -> Table:
    """Makes a table of everything in a row.

    On a narrow terminal it lacks the paper's side and has our side in short.
    """
    recipe = report.tables.recipe
    # Widths as shares of what the terminal has left after id and verdict.
    table = Table(title=f"{recipe.name}, seed {recipe.seed}", show_lines=True)
    table.add_column("id")
    table.add_column("claim", ratio=3)
    if not is_narrow:
        table.add_column("paper", ratio=2)
    table.add_column("ours", ratio=4 if is_narrow else 5)
    table.add_column("verdict", no_wrap=True)
    for finding in report.findings:
        shown = [finding.in_short] if is_narrow else [finding.claim.paper, finding.ours]
        table.add_row(finding.claim.id, finding.claim.claim, *shown, finding.verdict)
    return table


def print_guard(
    guard: "Guard", folder: Path, warnings: Sequence[str] = (), *, as_json: bool
) -> None:
    """Prints how a guard was fitted, and at which labels it can see nothing, or its profile."""
    facts = _guard_facts(guard)
    if as_json:
        say_json({"guard": str(folder), **facts, "warnings": list(warnings)})
        return
    say(
        f"guard in {folder}: {facts['num_reference']} clean inputs for reference, "
        f"{facts['num_calibration']} for calibration"
    )
    rate, spread = facts["false_positive_rate"], facts["rate_spread"]
    say(f"false-positive rate {rate:g}, give or take {spread:.2g} for these calibration inputs")
    if profile := facts.get("perturbations"):
        say(f"{facts['passes']} passes for each input, under {', '.join(profile)}")
    if blind := facts.get("blind_labels"):
        say(
            f"sees no trigger where the model names class {', '.join(map(str, blind))}: clean "
            "inputs are as smooth there"
        )


def _guard_facts(guard: "Guard") -> dict[str, Any]:
    from wobbliness.detectors.guards.profile_guard import ProfileGuard  # heavy

    rate = guard.false_positive_rate
    if isinstance(guard, ProfileGuard):
        stage, made = guard.stages_[-1], guard.perturbations_
        numbers = _fit_facts(len(stage.cloud.points), len(stage.calibration), rate)
        return numbers | {
            "perturbations": [each.name for each in made],
            "passes": guard.num_passes,
        }
    numbers = _fit_facts(len(guard.reference_.label), len(guard.calibration_), rate)
    # Labels at which even W = 0 has a p-value above the rate.
    blind = [int(label) for label in np.flatnonzero(guard.smooth_pvalues_ > rate)]
    return numbers | {"smooth_pvalues": guard.smooth_pvalues_.tolist(), "blind_labels": blind}


def _fit_facts(num_reference: int, num_calibration: int, rate: float) -> dict[str, Any]:
    return {
        "num_reference": num_reference,
        "num_calibration": num_calibration,
        "false_positive_rate": rate,
        # Standard deviation of the rate over the draw of the calibration inputs.
        "rate_spread": float(np.sqrt(rate * (1 - rate) / num_calibration)),
    }


def print_judgement(
    judgement: "Judgement",
    names: Sequence[str],
    warnings: Sequence[str] = (),
    *,
    verdict: str,
    as_json: bool,
) -> None:
    """Prints a line for each suspicious input and a summary, or JSON with all inputs.

    Args:
        judgement: of the inputs.
        names: of the inputs.
        warnings: to repeat in the JSON.
        verdict: of those that are flagged, such as `suspiciously smooth`.
        as_json: whether to print JSON.
    """
    if as_json:
        say_json(_judgement_json(judgement, names) | {"warnings": list(warnings)})
        return
    reasons = _reasons(judgement)
    # Of a profile the reasons, as its verdict is not read from W alone.
    heads = "   reason" if reasons else _w_heads(judgement)
    say(f"{'input':>8} {'label':>6} {'p-value':>8}{heads}   name")
    for index in map(int, np.flatnonzero(judgement.is_suspicious)):
        label, pvalue = judgement.undisturbed_label[index], judgement.pvalue[index]
        found = f"   {reasons[index]}" if reasons else _w_line(judgement, index)
        say(f"{index:>8} {label:>6} {pvalue:>8.4f}{found}   {names[index]}")
    remark = f"{judgement.false_positive_rate:.1%} expected of clean inputs"
    _print_num_suspicious(judgement.is_suspicious, verdict, remark)
    if judgement.votes.precision is not None:
        say(f"precision {judgement.votes.precision}")


def _judgement_json(judgement: "Judgement", names: Sequence[str]) -> dict[str, Any]:
    """Returns every input; the printed table holds only the suspicious ones."""
    columns = ["input", "is_suspicious", "pvalue", "score", "undisturbed_label", "name"]
    columns += ["reason", "spoke"]
    # One list for each input, a value at each sigma.
    at_sigmas = ("wobbliness", "smoothed_label", "agrees")
    rows = [
        row
        | {"percentile": _or_null(judgement.percentile[index])}
        | {name: getattr(judgement, name)[index].tolist() for name in at_sigmas}
        for index, row in enumerate(judgement.frame(names)[columns].to_dict("records"))
    ]
    votes = judgement.votes.votes
    others = [{"perturbation": at.perturbation, "draws": at.draws} for at in votes]
    return {
        "false_positive_rate": judgement.false_positive_rate,
        "sigmas": [at.sigma for at in votes],
        # Only where one is no noise, since each has a number of draws of its own then.
        **({"perturbations": others} if any(at.sigma is None for at in votes) else {}),
        "draws": max(at.draws for at in votes),
        **({} if judgement.votes.precision is None else {"precision": judgement.votes.precision}),
        "inputs": rows,
    }


def _reasons(judgement: "Judgement") -> tuple[str, ...]:
    """Returns the reasons of a profile's verdicts."""
    from wobbliness.detectors.guards.detection_results import ProfileJudgement

    return judgement.reasons if isinstance(judgement, ProfileJudgement) else ()


def _w_heads(judgement: "Judgement") -> str:
    columns = "".join(f"{head:>{width}}" for head, width in _w_columns(judgement).items())
    return f"{columns}   smoothed label"


def _w_columns(judgement: "Judgement") -> dict[str, int]:
    """Returns the heads of the columns of W, and their widths: as long as a name is."""
    heads = {f"W {shown_level(level)}": level for level in judgement.votes}
    return {
        head: max(9, len(head) + 2) if isinstance(level, str) else 9
        for head, level in heads.items()
    }


def _w_line(judgement: "Judgement", index: int) -> str:
    # The widths of the heads that `print_judgement` prints.
    widths = _w_columns(judgement).values()
    at = zip(judgement.wobbliness[index], widths, strict=True)
    w = "".join(f"{value:>{width}.3f}" for value, width in at)
    is_same, smoothed = judgement.agrees[index].all(), judgement.smoothed_label[index]
    agrees = "the same" if is_same else ", ".join(map(str, smoothed))
    return f"{w}   {agrees:<14}"


def print_quick_verdicts(
    verdicts: "QuickVerdicts",
    names: Sequence[str],
    warnings: Sequence[str] = (),
    *,
    verdict: str,
    as_json: bool,
) -> None:
    """Prints the suspicious inputs and the draws it took, or JSON; arguments as above."""
    if as_json:
        said = {"most_draws": verdicts.most_draws, "mean_draws": float(verdicts.draws.mean())}
        rows = verdicts.frame(names).to_dict("records")
        say_json(said | {"inputs": rows, "warnings": list(warnings)})
        return
    indices = map(int, np.flatnonzero(verdicts.is_suspicious))
    # A name that is the row's number says nothing more.
    suspicious = [
        str(index) if names[index] == str(index) else f"{index} ({names[index]})"
        for index in indices
    ]
    say("suspicious inputs: " + (", ".join(suspicious) or "none"))
    remark = f"{verdicts.draws.mean():.0f} draws for each on average, of {verdicts.most_draws}"
    _print_num_suspicious(verdicts.is_suspicious, verdict, remark)


def _print_num_suspicious(is_suspicious: np.ndarray, verdict: str, remark: str) -> None:
    say(
        f"{is_suspicious.sum()} of {len(is_suspicious)} inputs are {verdict} "
        f"({is_suspicious.mean():.1%}; {remark})"
    )


def print_detection(
    found: "Detection", names: Sequence[str], warnings: Sequence[str] = (), *, as_json: bool
) -> None:
    """Prints a line for each score, and the suspected class of a model; or JSON."""
    frame = found.frame(names)
    counts = {"num_fit": found.num_fit, "num_calibration": found.num_calibration}
    if as_json:
        by_class = None if found.class_scores is None else list(map(_or_null, found.class_scores))
        rows = [
            row | {name: _or_null(row[name]) for name in ("score", "pvalue")}
            for row in frame.to_dict("records")
        ]
        what = {"detector": found.detector, "judges": found.judges.value}
        said = {"rows": rows, "class_scores": by_class, "warnings": list(warnings)}
        say_json(what | counts | said)
        return
    say(f"{'input':>8} {'score':>12} {'p-value':>8}   name")
    for row in frame.itertuples():
        say(f"{row.input:>8} {row.score:>12.6g} {_or_dash(row.pvalue, '.4f'):>8}   {row.name}")
    if found.class_scores is not None:
        target = int(found.class_scores.argmax())
        say(f"suspected target: class {target} ({found.class_scores[target]:.3g})")
    say(
        f"{found.detector} judges {found.judges.value}; fitted on {found.num_fit} clean images, "
        f"p-values by {found.num_calibration} clean scores"
    )


def _or_null(value: float) -> float | None:
    """Returns a number; None for NaN and infinity, which strict JSON lacks."""
    return float(value) if np.isfinite(value) else None
