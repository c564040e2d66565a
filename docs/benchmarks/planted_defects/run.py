"""How many of a thousand planted defects prepare_data finds, and what else it drops.

    python docs/benchmarks/planted_defects/run.py measure --data FOLDER

FOLDER holds Multi30k: `train.<language>.gz` for de, en, fr and cs, and `test_2016_flickr.{de,en}.gz`. Its training
text (de-en) is freed of its own duplicates; then a hundred pairs of each kind of defect take the places of others,
drawn by a seed. The recipe runs over it twice: with its own list of steps, and with `alignment` in it. Both times the
leakage gate stands against the test set. The judged drops come from judge.py.
"""

from __future__ import annotations

import gzip
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from hf_nmt.benchmarking import command_line, keep_result, recipe, where_measured
from hf_nmt.cleaning.settings import DEFAULT_STEPS, STEPS_WITH_ALIGNMENT
from hf_nmt.planting import KINDS, Pair, plant

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/planted_defects")
SEED, OF_A_KIND = 20221122, 100
BAR, BAR_OVER_ALL, BAR_PRECISION = 0.8, 0.9, 0.95
SAMPLES = {
    "training": (
        "All drops of Multi30k's training text from de, fr and cs to en, and of the Korean-English files. Of a",
        "first 200, before `endings`, `numbers` and `links` were made milder for what was wrong there, 172 were",
        "right (0.860). Most pairs are the same again: this is no fresh test of these steps.",
    ),
    "pairings": (
        "Fresh: all drops of Multi30k from de to fr and cs and from fr to cs, and of its validation and test sets",
        "to en, judged when the steps were as they had been for the sample before. `ratio` was wrong on Czech,",
        "which says in 8 characters what German and French say in 10; all else was right but for two measures",
        "that were converted. So `ratio` was changed to compare with what is usual for the languages: from de to",
        "fr and cs and from fr to cs it now drops 14 in place of 105, 10 of them right. That makes 76 of 82",
        "(0.927), still below the bar, and is no fresh test either. Translated messages of a program (Django; de,",
        "fr, cs and ko to en) were drawn after that change: of 200 drops 118 repeat another message, 54 are",
        "copies (names, placeholders), 14 hold markup, and `ratio` has none. They hold hardly a sentence, and",
        "were not judged.",
    ),
}
LISTS = {"default": DEFAULT_STEPS, "with alignment": STEPS_WITH_ALIGNMENT}


def lines(data: Path, name: str, language: str) -> list[str]:
    with gzip.open(data / f"{name}.{language}.gz", "rt", encoding="utf-8") as file:
        return file.read().splitlines()


def rows_of(version: Path, file: str) -> list[dict[str, Any]]:
    return [row for path in sorted(version.glob(file)) for row in pq.read_table(path).to_pylist()]


def prepare(rows: list[dict[str, Any]], name: str, work: Path, steps: list[dict], leakage: dict | None) -> Path:
    """The version that the recipe makes of some rows."""
    (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = {
        "source_language": "de",
        "target_language": "en",
        "inputs": {name: {"path": str(work / f"{name}.jsonl")}},
        "steps": steps,
        "output_dir": str(work / name),
        "work_dir": str(work / "between"),
        "num_workers": 1,
    }
    (work / f"{name}.yaml").write_text(json.dumps(settings | ({"leakage": leakage} if leakage else {})), "utf-8")
    return Path(recipe("prepare_data", "--config", str(work / f"{name}.yaml")))


def planted(data: Path, own: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All pairs, defects among them, with `article` naming these and `was` what stood there."""
    pairs = [(row["source"], row["target"]) for row in own]
    others = [
        [texts[row["position"]] for row in own] for texts in (lines(data, "train", code) for code in ("fr", "cs"))
    ]
    test = list(zip(*(lines(data, "test_2016_flickr", side) for side in ("de", "en")), strict=True))
    found = plant(pairs, dict.fromkeys(KINDS, OF_A_KIND), SEED, others=others, near=test)
    number: Counter[str] = Counter()
    for place, pair in enumerate(pairs):
        if place not in found:
            yield {"source": pair[0], "target": pair[1]}
            continue
        kind, (source, target) = found[place]
        yield {"source": source, "target": target, "article": f"{kind}-{number[kind]}", "was": pair}
        number[kind] += 1


def measure(data: Path, work: Path, runs: dict[str, str]) -> None:
    raw = zip(*(lines(data, "train", side) for side in ("de", "en")), strict=True)
    rows = [{"source": one, "target": other, "position": place} for place, (one, other) in enumerate(raw)]
    freed = prepare(rows, "freed", work, [{"exact_duplicates": {}}, {"near_duplicates": {}}], None)
    own = sorted(rows_of(freed, "data/*.parquet"), key=lambda row: row["position"])
    every = list(planted(data, own))
    was = {row["article"]: row.pop("was") for row in every if "article" in row}
    for language in ("de", "en"):
        (work / f"test.{language}").write_text("\n".join(lines(data, "test_2016_flickr", language)) + "\n", "utf-8")
    test = {"source": str(work / "test.de"), "target": str(work / "test.en"), "max_near": 0, "max_one_sided": 0}
    for name, steps in LISTS.items():
        start = time.monotonic()
        leakage = {"sets": {"test": test}, "on_leak": "drop"}
        version = prepare(every, name.replace(" ", "-"), work, [{kind: {}} for kind in steps], leakage)
        keep_result(RESULTS, name, judged(version, was) | {"seconds": round(time.monotonic() - start)})


def judged(version: Path, was: dict[str, Pair]) -> dict[str, Any]:
    gone, left = rows_of(version, "rejects.parquet"), rows_of(version, "data/*.parquet")
    found: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for row in gone:
        if row["article"]:
            found[row["article"].split("-")[0]][f"{row['step']}: {row['reason']}"] += 1
    for row in left:
        if row["article"] and row["article"].startswith("mojibake-"):
            found["mojibake"]["mended"] += (row["source"], row["target"]) == tuple(was[row["article"]])
    others = Counter(f"{row['step']}: {row['reason']}" for row in gone if not row["article"])
    return {
        "pairs": len(gone) + len(left),
        "planted": dict(Counter(article.split("-")[0] for article in was)),
        "found": {kind: dict(counts.most_common()) for kind, counts in found.items()},
        "not_planted": dict(others.most_common()),
    }


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    runs = {name: results[name] for name in LISTS}
    shares = {
        name: {kind: sum(run["found"][kind].values()) / run["planted"][kind] for kind in KINDS}
        for name, run in runs.items()
    }
    pairs = next(iter(runs.values()))["pairs"]
    text = [
        "# Planted defects",
        "",
        f"Made by `run.py` and `judge.py` from `results.json` and `verdicts_*.tsv`. Into the {pairs:,}",
        "German-English training pairs of Multi30k that are no duplicates of each other",
        f"{OF_A_KIND * len(KINDS):,} defects are planted, {OF_A_KIND} of each kind, and `prepare_data` is run",
        "over them: with its default steps, and with the step `alignment`, which is opt-in, before the duplicates.",
        "The leakage gate stands against the test set of 2016, with `on_leak: drop` and a bar of 0 for equal,",
        f"one-sided and near pairs. The bar is a recall of {BAR} for each kind and {BAR_OVER_ALL} over all. Whatever",
        "drops a planted pair has found it.",
        "",
        f"| kind | what is planted | {' | '.join(runs)} | found by (with alignment) |",
        "|---|---|" + "---|" * (len(runs) + 1),
    ]
    last = [*runs.values()][-1]
    for kind, told in KINDS.items():
        cells = [f"{shares[name][kind]:.2f}{'' if shares[name][kind] >= BAR else ' (below the bar)'}" for name in runs]
        by = ", ".join(f"{reason} {count}" for reason, count in last["found"][kind].items())
        text.append(f"| {kind} | {told} | {' | '.join(cells)} | {by} |")
    means = [f"{sum(of.values()) / len(of):.3f}" for of in shares.values()]
    text += [f"| over all | | {' | '.join(means)} | |", "", "What was dropped and not planted:", ""]
    for name, run in runs.items():
        others = ", ".join(f"{reason} {count}" for reason, count in run["not_planted"].items()) or "nothing"
        text.append(f"-   {name}: {sum(run['not_planted'].values())} of {run['pairs']:,}: {others}.")
    text += ["", *verdicts_told(), *environment_told(results)]
    (HERE / "README.md").write_text("\n".join(text), encoding="utf-8")


def verdicts_told() -> list[str]:
    told = [
        "## Judged drops",
        "",
        "Drops of text as it is, with the step `alignment`, read one by one by one reader. Right is what is no",
        "translation, lacks a clause of the other side or is damaged, and what says the same as the pair that",
        "stays, but for a detail that one of them leaves out; wrong is a good translation, though it may lack",
        "an adjective, and a near-duplicate that says another thing (he, she). Ids and verdicts are in",
        f"`verdicts_*.tsv`; `explain=ID` shows the texts to those who have them. The bar is {BAR_PRECISION};",
        "behind each share stands its interval of 95% (Wilson).",
        "",
    ]
    for sample, about in SAMPLES.items():
        rows = [
            line.split("\t") for line in (HERE / f"verdicts_{sample}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        ]
        right = Counter(row[2] for row in rows if row[3] == "right")
        every = Counter(row[2] for row in rows)
        share = right.total() / every.total()
        low, high = interval(right.total(), every.total())
        told += [
            f"### {sample.capitalize()}",
            "",
            f"{right.total()} of {every.total()} are right, {share:.3f} ({low:.3f} to {high:.3f}): the bar is "
            + ("met." if share >= BAR_PRECISION else "not met."),
            *about,
            "",
            "| step: reason | judged | right |",
            "|---|---|---|",
            *(f"| {reason} | {count} | {right[reason]} |" for reason, count in every.most_common()),
            "",
        ]
    return told


def interval(right: int, every: int) -> tuple[float, float]:
    """Wilson's interval of a share, of 95%."""
    z, share = 1.96, right / every
    middle = share + z * z / (2 * every)
    half = z * math.sqrt(share * (1 - share) / every + z * z / (4 * every * every))
    whole = 1 + z * z / every
    return (middle - half) / whole, (middle + half) / whole


def environment_told(results: dict[str, Any]) -> list[str]:
    processors, versions = where_measured(results[name] for name in LISTS)
    seconds = ", ".join(f"{name} {results[name]['seconds']} s" for name in LISTS)
    return [f"Wall time on one busy core: {seconds}. {processors}; {versions}.", ""]


if __name__ == "__main__":
    command_line(__doc__, {"measure": measure}, page, work=WORK)
