"""Cleaning: pairs per CPU second beside OpusFilter, and a million pairs through the default steps.

    python docs/benchmarks/data/run.py filters    --data FOLDER   six simple filters, 100,000 pairs, in turn
    python docs/benchmarks/data/run.py duplicates --data FOLDER   exact duplicates likewise
    python docs/benchmarks/data/run.py large      --data FOLDER   both once with a million pairs
    python docs/benchmarks/data/run.py start      --data FOLDER   what each takes to start and do nothing
    python docs/benchmarks/data/run.py million    --data FOLDER   the default steps, two processes, time and memory
    python docs/benchmarks/data/run.py page                       results.json -> README.md

FOLDER of Multi30k holds train as `train.<language>.gz` (github.com/multi30k/dataset). OPUSFILTER in the environment is
the program `opusfilter` of a Python environment of its own. The text is made: bigrams of the captions, one model for
each language, sides of like length together, one pair in twenty a copy of another. What is measured is the whole
command, from its start to its end, on one core but for `million`.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hf_nmt.benchmarking import ROOT, command_line, keep_result, where_measured

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/cleaning")
LANGUAGES = ("de", "en")
FEW, MANY, ROUNDS = 100_000, 1_000_000, 5
COPIES = 0.05
LONGEST = 60
OURS = {
    "filters": [
        {"lengths": {"max_words": 100}}, {"ratio": {}}, {"long_words": {}}, {"markup": {}}, {"endings": {}},
        {"numbers": {}},
    ],
    "duplicates": [{"exact_duplicates": {"fold": []}}],
}  # fmt: skip
THEIRS = {
    "filters": {
        "type": "filter",
        "filters": [
            {"LengthFilter": {"unit": "word", "min_length": 1, "max_length": 100}},
            {"LengthRatioFilter": {"unit": "word", "threshold": 3}}, {"LongWordFilter": {"threshold": 50}},
            {"HtmlTagFilter": {}}, {"TerminalPunctuationFilter": {}}, {"NonZeroNumeralsFilter": {}},
        ],
    },
    "duplicates": {"type": "remove_duplicates"},
}  # fmt: skip


def sentences(texts: list[str], count: int, seed: int) -> list[str]:
    """Drawn from the bigrams of some texts, all at once: a step for every word."""
    words: dict[str, int] = {"": 0}
    following: list[list[int]] = [[]]
    for text in texts:
        last = 0
        for word in [*text.split(), ""]:
            number = words.setdefault(word, len(words))
            if number == len(following):
                following.append([])
            following[last].append(number)
            last = number
    sizes = np.array([len(row) for row in following])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    flat = np.concatenate([np.array(row, np.int64) for row in following])
    generator = np.random.default_rng(seed)
    state = np.zeros(count, np.int64)
    alive = np.ones(count, bool)
    drawn = np.zeros((count, LONGEST), np.int32)
    for place in range(LONGEST):
        chosen = (generator.random(count) * sizes[state]).astype(np.int64)
        state = np.where(alive, flat[starts[state] + chosen], 0)
        alive &= state > 0
        drawn[:, place] = state
    names = np.array(list(words), object)
    return [" ".join(names[row[row > 0]]) for row in drawn]


def prepare(data: Path, work: Path, count: int) -> list[Path]:
    """A file for each language."""
    paths = [work / f"made-{count}.{language}" for language in LANGUAGES]
    if not all(path.is_file() for path in paths):
        own = round(count * (1 - COPIES))
        sides = []
        for number, language in enumerate(LANGUAGES):
            with gzip.open(data / f"train.{language}.gz", "rt", encoding="utf-8", newline="\n") as file:
                made = sentences([line.rstrip("\n") for line in file], own, seed=number)
            sides.append(sorted(made, key=lambda text: len(text.split())))
        generator = np.random.default_rng(7)
        rows = np.concatenate([np.arange(own), generator.integers(0, own, count - own)])
        generator.shuffle(rows)
        for path, side in zip(paths, sides, strict=True):
            path.write_text("".join(f"{side[row]}\n" for row in rows.tolist()), encoding="utf-8")
    return paths


def measured(command: list[str], cores: int = 1) -> dict[str, Any]:
    """CPU and wall seconds of a command and of all that it starts, the largest sum of their memory, and the CPU
    seconds of steps that it tells of itself."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # else our own modules alone would be compiled every time
    if shutil.which("taskset"):
        command = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores])), *command]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=_watch_memory, args=(process, peak))
    watcher.start()
    _, told = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command}: {told}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    steps = {name: float(seconds) for name, seconds in re.findall(r"(\w+): \d+ kept; .*\(([\d.]+) CPU s\)", told)}
    return {"cpu_seconds": cpu, "seconds": time.perf_counter() - start, "peak_bytes": peak[0], "steps": steps}


def _watch_memory(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Proportional set sizes of a process and its descendants, summed, every half second."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(map(_memory, _family(process.pid))))
        time.sleep(0.5)


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def ours(paths: list[Path], work: Path, steps: list[dict] | None, workers: int = 1) -> list[str]:
    """The command, in folders that are not there yet."""
    for folder in ("versions", "between"):
        shutil.rmtree(work / folder, ignore_errors=True)
    settings: dict[str, Any] = {
        "source_language": LANGUAGES[0],
        "target_language": LANGUAGES[1],
        "inputs": {"made": {"source": str(paths[0]), "target": str(paths[1])}},
        "output_dir": str(work / "versions"),
        "work_dir": str(work / "between"),
        "num_workers": workers,
    }
    if steps is not None:
        settings["steps"] = steps
    (work / "ours.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return [sys.executable, str(ROOT / "recipes" / "prepare_data.py"), "--config", str(work / "ours.yaml")]


def theirs(paths: list[Path], work: Path, step: Mapping[str, Any]) -> list[str]:
    program = os.environ.get("OPUSFILTER") or shutil.which("opusfilter")
    if program is None:
        raise SystemExit("OPUSFILTER is not set: give the program of an environment that has OpusFilter.")
    outputs = [f"kept.{language}" for language in LANGUAGES]
    parameters = {"inputs": [path.name for path in paths], "outputs": outputs}
    parameters |= {key: value for key, value in step.items() if key != "type"}
    settings = {
        "common": {"output_directory": str(work.resolve())},
        "steps": [{"type": step["type"], "parameters": parameters}],
    }
    (work / "theirs.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return [program, "--overwrite", str(work / "theirs.yaml")]


def kept(work: Path) -> dict[str, int]:
    """Pairs that each left."""
    (manifest,) = (work / "versions").glob("*/manifest.json")
    with (work / f"kept.{LANGUAGES[0]}").open(encoding="utf-8") as file:
        return {"hf_nmt": json.loads(manifest.read_text(encoding="utf-8"))["rows"], "OpusFilter": sum(1 for _ in file)}


def compare(part: str, count: int, rounds: int, data: Path, work: Path) -> dict[str, Any]:
    paths = prepare(data, work, count)
    found: dict[str, list[dict[str, float]]] = {"hf_nmt": [], "OpusFilter": []}
    for _ in range(rounds):
        found["OpusFilter"].append(measured(theirs(paths, work, THEIRS[part])))
        found["hf_nmt"].append(measured(ours(paths, work, OURS[part])))
        sys.stderr.write(f"{ {name: round(count / runs[-1]['cpu_seconds']) for name, runs in found.items()} }\n")
    return {"pairs": count, "rounds": found, "kept": kept(work)}


def compared(part: str, data: Path, work: Path, runs: dict[str, str]) -> None:
    keep_result(RESULTS, part, compare(part, FEW, ROUNDS, data, work))


def large(data: Path, work: Path, runs: dict[str, str]) -> None:
    keep_result(RESULTS, "large", {part: compare(part, MANY, 1, data, work) for part in OURS})


def start(data: Path, work: Path, runs: dict[str, str]) -> None:
    """What of the time is spent before the first pair is read."""
    paths = prepare(data, work, FEW)
    commands = {"hf_nmt": ours(paths, work, None), "OpusFilter": theirs(paths, work, THEIRS["duplicates"])}
    helps = {name: [*command[: 2 - (name != "hf_nmt")], "--help"] for name, command in commands.items()}
    found = {name: [measured(command) for _ in range(ROUNDS)] for name, command in helps.items()}
    keep_result(RESULTS, "start", {"rounds": found})


def million(data: Path, work: Path, runs: dict[str, str]) -> None:
    """The default steps, which end with near-duplicates."""
    paths = prepare(data, work, MANY)
    figures = measured(ours(paths, work, None, workers=2), cores=2)
    (manifest,) = (work / "versions").glob("*/manifest.json")
    told = json.loads(manifest.read_text(encoding="utf-8"))
    steps = {step["name"]: {"kept": step["kept"], "dropped": step["dropped"]} for step in told["steps"]}
    for name, seconds in figures.pop("steps").items():
        steps[name]["cpu_seconds"] = seconds
    keep_result(RESULTS, "million", {"pairs": MANY, **figures, "steps": steps, "rows": told["rows"]})


PARTS = {part: functools.partial(compared, part) for part in OURS} | {
    "large": large,
    "start": start,
    "million": million,
}
TITLES = {"filters": "six filters", "duplicates": "exact duplicates"}


def rate(result: Mapping[str, Any], name: str) -> float:
    return statistics.median(result["pairs"] / one["cpu_seconds"] for one in result["rounds"][name])


def row(title: str, result: Mapping[str, Any]) -> str:
    pairs = zip(result["rounds"]["OpusFilter"], result["rounds"]["hf_nmt"], strict=True)
    ratios = sorted(theirs["cpu_seconds"] / ours["cpu_seconds"] for theirs, ours in pairs)
    spread = f" ({ratios[0]:.1f} to {ratios[-1]:.1f})" if len(ratios) > 1 else ""
    memory = (max(one["peak_bytes"] for one in result["rounds"][name]) / 2**20 for name in ("hf_nmt", "OpusFilter"))
    cells = (
        title,
        f"{result['pairs']:,}",
        f"{rate(result, 'hf_nmt'):,.0f}",
        f"{rate(result, 'OpusFilter'):,.0f}",
        f"{statistics.median(ratios):.1f}{spread}",
        *(f"{one:,.0f}" for one in memory),
        *(f"{result['kept'][name]:,}" for name in ("hf_nmt", "OpusFilter")),
    )
    return f"| {' | '.join(cells)} |"


def alone(results: Mapping[str, Any]) -> list[str]:
    """The steps without what is around them, of a million pairs."""
    begins = {
        name: statistics.median(one["cpu_seconds"] for one in runs)
        for name, runs in results["start"]["rounds"].items()
    }
    lines = []
    for part in OURS:
        result = results["large"][part]
        (own,), (other,) = (result["rounds"][name] for name in ("hf_nmt", "OpusFilter"))
        steps = sum(own["steps"].values())
        rest = other["cpu_seconds"] - begins["OpusFilter"]
        whole = own["cpu_seconds"] - begins["hf_nmt"]
        cells = (
            TITLES[part],
            f"{steps:.1f}",
            f"{whole:.1f}",
            f"{rest:.1f}",
            f"{rest / steps:.1f}",
            f"{rest / whole:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return [
        "Where our time goes, with a million pairs, in CPU seconds: the steps by themselves as the log tells it, and "
        f"the command without its start ({begins['hf_nmt']:.2f} s; OpusFilter's takes {begins['OpusFilter']:.2f} s). "
        "What is between the two is reading, ids, the tables between the passes, the content hash and Parquet. "
        "OpusFilter's reading and writing cannot be told from its steps. Who wants nothing but exact duplicates gone "
        "is served faster by OpusFilter.",
        "",
        "| | steps alone | without the start | OpusFilter's without its start | ratio, steps alone | ratio, both "
        "without the start |",
        "|---|---|---|---|---|---|",
        *lines,
        "",
    ]


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = [
        "# Cleaning a corpus",
        "",
        "Made by `run.py` from `results.json`. The text is made from bigrams of Multi30k's German and English "
        f"captions, one pair in {round(1 / COPIES)} a copy of another.",
        "",
    ]
    rows = [row(TITLES[part], results[part]) for part in OURS if part in results]
    rows += [row(TITLES[part], result) for part, result in results.get("large", {}).items() if part in OURS]
    if rows:
        lines += [
            "## Beside OpusFilter",
            "",
            "Pairs per CPU second of the whole command, one process on one core, the two in turn; the median of "
            f"{ROUNDS} rounds, and of the ratios (least to largest); with a million pairs one round. Ours reads "
            "and names every record, writes Parquet, a manifest and every rejected pair with its reason; OpusFilter "
            "3.3.1 writes text. Memory in MiB: the largest sum over the processes, shared pages divided.",
            "",
            "| | pairs | hf_nmt | OpusFilter | ratio | memory | OpusFilter's | pairs kept | OpusFilter's |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Six filters: lengths, ratio of lengths, long words, HTML, ends of sentences, numerals. Both have them "
            "with thresholds of their own, so that they do not keep the same pairs; `ratio` and `endings` look at the "
            "whole corpus first.",
            "",
        ]
    if "start" in results and "large" in results:
        lines += alone(results)
    if "million" in results:
        one = results["million"]
        lines += [
            "## A million pairs",
            "",
            f"{one['pairs']:,} pairs through the default steps in two processes on two cores, which other "
            "work shared: "
            f"{one['seconds'] / 60:.1f} minutes, {one['cpu_seconds'] / 60:.1f} CPU-minutes, "
            f"{one['peak_bytes'] / 2**30:.2f} GiB at most (summed "
            "over the processes, shared pages divided).",
            "",
            "| step | kept | dropped | CPU seconds |",
            "|---|---|---|---|",
            *(
                f"| `{name}` | {step['kept']:,} | "
                f"{', '.join(f'{reason} {count:,}' for reason, count in step['dropped'].items()) or '-'} | "
                f"{step['cpu_seconds']:.1f} |"
                for name, step in one["steps"].items()
            ),
            "",
        ]
    processors, versions = where_measured(one for one in results.values())
    lines += [f"{processors}; {versions}.", ""]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
