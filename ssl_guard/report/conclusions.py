"""Writes the sentences of a report: verdicts, training facts, alarms and licences."""

from ssl_guard.data.schema import licence_notes
from ssl_guard.report.comparison import verdict
from ssl_guard.report.results import Result
from ssl_guard.report.tables import cell


def sentences(results: list[Result], summaries: list[dict], against: str) -> list[str]:
    """States the verdicts on F1 of one test set; none without a comparison.

    At most three sentences: on methods without a matching baseline run, on methods that learn from
    labelled data alone, and on those that learn from unlabelled data.

    results, summaries: a cohort and its `comparison.summarise`; against: the baseline's method.
    """
    corpus = results[0].cohort["corpus"]
    others = [row for row in summaries if row["method"] != against]
    compared = [row for row in others if "f1" in row["gains"]]
    alone = dict.fromkeys(row["method"] for row in others if not row["gains"])
    found = []
    if alone and len(set(results[0].truth)) == 2:
        found.append(
            f"{', '.join(alone)}: not compared on {corpus}, as no run of {against} has the same "
            "test rows, seed and labelled rows"
        )
    for unlabelled in (False, True):
        if rows := [row for row in compared if _learns_from_unlabelled(row) == unlabelled]:
            found.append(_sentence(rows, unlabelled, against, corpus))
    return found


def _sentence(rows: list[dict], unlabelled: bool, against: str, corpus: str) -> str:
    if len(rows) == 1:
        (row,) = rows
        gain = row["gains"]["f1"]
        subject = "unlabelled data" if unlabelled else f"{row['method']} instead of {against}"
        return (
            f"{subject}: {verdict(gain)} (F1 of {row['method']} against {against} on {corpus}: "
            f"{cell(gain, sign='+')}, p {gain['holm']:.3f} after Holm's correction)"
        )
    counts = []
    for word in ("helped", "hurt", "no evidence"):
        mine = [row for row in rows if verdict(row["gains"]["f1"]) == word]
        gains = [f"{row['method']} {cell(row['gains']['f1'], sign='+')}" for row in mine]
        names = f" ({', '.join(gains)})" if word != "no evidence" else ""
        counts += [f"{word} with {len(mine)} of {len(rows)} methods{names}"] if mine else []
    subject = "unlabelled data" if unlabelled else "other methods"
    return f"{subject}: {'; '.join(counts)}; F1 against {against} on {corpus}"


def _learns_from_unlabelled(row: dict) -> bool:
    """Returns whether the runs of a method have shards of unlabelled views."""
    return all(
        result.run
        and "unlabelled" in result.run["report"]["data"].get("rows_longer_than_max_length", {})
        for result in row["results"]
    )


def training_facts(results: list[Result]) -> str:
    """Describes the rows, seeds, machines and minutes of a cohort's runs; "" without runs."""
    reports = [result.run["report"] for result in results if result.run]
    if not reports:
        return ""
    rows = [report["data"]["rows"] for report in reports]
    machines = [report["provenance"].get("machine") for report in reports]
    machines = [
        f"{found['cores']} core{'s' * (found['cores'] > 1)} of {found['cpu']}"
        for found in machines
        if found
    ]
    minutes = sum(report["training"]["seconds"] for report in reports) / 60
    facts = [
        f"{_values(row['labelled'] for row in rows)} labelled and "
        f"{_values(row.get('unlabelled', 0) for row in rows)} unlabelled rows",
        *_choosing([report["data"] for report in reports]),
        f"seed {_values(report['seed'] for report in reports)}",
        *dict.fromkeys(machines),
        f"{minutes:.1f} minutes of training in all",
    ]
    return f"training: {'; '.join(facts)}"


def _choosing(data: list[dict]) -> list[str]:
    """Names the labels that chose the step and the threshold, see prepare.py; [] if not known."""
    kinds = {"labelled": "labelled rows in folds", "dev": "dev rows"}
    found = [one.get("labels_choosing") or {"dev": one["rows"].get("dev", 0)} for one in data]
    names = [
        f"{_values(counts)} {name}"
        for side, name in kinds.items()
        if (counts := [one[side] for one in found if one.get(side)])
    ]
    return [f"step and threshold chosen on {' or '.join(names)}"] if names else []


def _values(values) -> str:
    return ", ".join(map(str, sorted(set(values))))


def alarms_of(results: list[Result]) -> list[tuple[str, list[str]]]:
    """Lists (folder, alarms) of every run with alarms."""
    runs = {str(result.run["workdir"]): result.run for result in results if result.run}
    found = {name: alarms(run["report"].get("observatory", {})) for name, run in runs.items()}
    return [(name, lines) for name, lines in found.items() if lines]


def alarms(diagnostics: dict) -> list[str]:
    """Lists the alarms of a run, steps without the unlabelled loss, and labels to check."""
    lines = [
        f"alarm {name}: from step {alarm['first_step']}, {alarm['steps']} steps in all"
        f"{', active at the end' if alarm['at_the_end'] else ''}"
        for name, alarm in diagnostics.get("alarms", {}).items()
    ]
    if diagnostics.get("braked_steps"):
        lines.append(f"the unlabelled loss was off for {diagnostics['braked_steps']} steps")
    suspects = [row["id"] for row in diagnostics.get("suspect_labels", ())]
    if suspects:
        lines.append(f"labels to check: {', '.join(suspects[:5])}{' ...' * (len(suspects) > 5)}")
    return lines


def licences(results: list[Result]) -> list[str]:
    """Lists the licences of training rows that forbid commercial use."""
    found = dict.fromkeys(r.run["report"]["data"].get("licence") for r in results if r.run)
    return [line for licence in found if licence for line in licence_notes(licence)]
