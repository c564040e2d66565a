"""What the scripts in docs/benchmarks share: recipes run as a user would, the facts of a run, results with where they
were measured."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hf_nmt.environment import environment

ROOT = Path(__file__).resolve().parents[1]
# Of the settings; older runs lack some.
_SECTIONS = ("seed", "tokenizer", "model", "batching", "training", "objective", "schedule", "watch", "decoding")
_CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "eval_loss", "eval_bleu", "eval_chrf")


def recipe(name: str, *arguments: str) -> str:
    """Run a recipe on one thread, offline, and return what it prints."""
    command = [sys.executable, str(ROOT / "recipes" / f"{name}.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.strip()


def train(run: str | None, *arguments: str) -> Path:
    """The run folder of a finished training: a new one, or `run`, taken up where it was broken off."""
    if run is None:
        return Path(recipe("train", *arguments)).parent
    if json.loads(Path(run, "run.json").read_text(encoding="utf-8"))["status"] != "finished":
        recipe("train", f"resume={run}")
    return Path(run)


def score(name: str, work: Path, *arguments: str) -> tuple[Path, list[dict[str, Any]]]:
    """Folder and score records of `recipes/validate.py`."""
    recipe("validate", *arguments, f"output_dir={work}", f"name={name}")
    folder = max((work / name).iterdir())
    return folder, json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def run_facts(run: Path) -> dict[str, Any]:
    """What a page tells of a run: settings, cost, curves; no paths."""
    record, summary = (json.loads((run / f"{name}.json").read_text(encoding="utf-8")) for name in ("run", "summary"))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "settings": {section: record["settings"][section] for section in _SECTIONS if section in record["settings"]},
        "data": record["data"],
        "trained_with": {name: record["environment"].get(name) for name in ("commit", "python", "packages")},
        "summary": summary,
        "curves": {
            name: [[entry["step"], entry["value"]] for entry in metrics if entry["name"] == name]
            for name in dict.fromkeys([*_CURVES, *filter(_is_of_a_pair, (entry["name"] for entry in metrics))])
        },
    }


def _is_of_a_pair(name: str) -> bool:
    """Whether a curve is that of one language pair, such as `eval_bleu_de-en`."""
    return name.startswith("eval_bleu_")


def measured_here() -> dict[str, Any]:
    """Commit, processor, versions and command: for every entry of a results file."""
    facts = environment()
    return {
        "commit": facts["commit"],
        "python": facts["python"],
        "processor": f"{facts['processor']}, {os.cpu_count()} cores",
        "versions": facts["packages"],
        "command": " ".join(Path(argument).name if "/" in argument else argument for argument in sys.argv),
    }


def keep_result(path: Path, name: str, result: dict[str, Any]) -> None:
    """Put an entry into a JSON file of results, with file names in place of the paths of this machine."""
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results[name] = _without_folders(result | {"environment": measured_here()})
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return Path(value).name if isinstance(value, str) and ("../" in value or value.startswith("/")) else value


def interval_text(scores: list[dict[str, Any]], name: str) -> str:
    """A score with its interval: `41.25 (39.7 to 42.8)`."""
    (found,) = [entry for entry in scores if entry["name"].lower().startswith(name)]
    low, high = found["interval"]
    return f"{found['value']:.2f} ({low:.1f} to {high:.1f})"


def where_measured(results: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """The processors of entries of a results file, and the versions of the first, as a page tells them."""
    environments = [result["environment"] for result in results]
    processors = sorted({environment["processor"] for environment in environments})
    versions = environments[0]["versions"]
    return "; ".join(processors), ", ".join(f"{name} {number}" for name, number in versions.items())


def subplots(*shape: int, **options: Any) -> tuple[Any, Any]:
    """Figure and axes as `pyplot.subplots` gives them, for a picture in a file: there may be no display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(*shape, **options)


def command_line(
    doc: str,
    parts: Mapping[str, Callable[[Path, Path, dict[str, str]], None]],
    page: Callable[[], None],
    *,
    work: Path,
) -> None:
    """Run a part of a benchmark as its script was called, then write its page; the part `page` writes the page alone.

    Args:
        doc: the docstring of the script.
        parts: name -> what measures it, given the folder with the text, the one to work in, and the runs to take up.
        page: writes the page from the results.
        work: where files are put unless told otherwise.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*parts, "page"])
    parser.add_argument("--data", type=Path, help="folder with the text")
    parser.add_argument("--work", type=Path, default=work, help="where files are put")
    parser.add_argument("--run", action="append", default=[], metavar="PART=RUN", help="take up a run")
    given = parser.parse_args()
    if given.part != "page":
        if given.data is None or not given.data.is_dir():
            parser.error(f"--data: {given.data} is no folder; give the one with the text (see --help)")
        given.work.mkdir(parents=True, exist_ok=True)
        parts[given.part](given.data, given.work, dict(entry.split("=", 1) for entry in given.run))
    page()
