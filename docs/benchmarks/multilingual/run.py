"""English to German, French and Czech in one model, and what temperature sampling does for the pair with least text.

    python docs/benchmarks/multilingual/run.py all           --data FOLDER   a quarter of an hour of one core
    python docs/benchmarks/multilingual/run.py temperature-1 --data FOLDER   some minutes, as the next
    python docs/benchmarks/multilingual/run.py temperature-5 --data FOLDER
    python docs/benchmarks/multilingual/run.py page                          results.json -> README.md and the figure

FOLDER of Multi30k holds train, val and test_2016_flickr as `<name>.<language>.gz` (github.com/multi30k/dataset). The
model `all` has the 29,000 training captions in each language. The other two are smaller and have unlike amounts, no
caption in two languages: the first 20,000 in German, the next 6,000 in French, the last 2,000 in Czech. Checkpoints
are chosen on validation text. A finished or broken-off run is taken up with `--run all=runs/<id>`. The test set is
translated once for each pair of each model.
"""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path

from hf_nmt.benchmarking import (
    command_line,
    interval_text,
    keep_result,
    run_facts,
    score,
    subplots,
    train,
    where_measured,
)

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/multilingual")
TARGETS = ("de", "fr", "cs")
# The lines of the training text that each pair has where the pairs are unlike.
UNLIKE = {"de": slice(0, 20_000), "fr": slice(20_000, 26_000), "cs": slice(27_000, 29_000)}
TITLES = {
    "all": "29,000 captions of each",
    "temperature-1": "unlike amounts, temperature 1",
    "temperature-5": "unlike amounts, temperature 5",
}
SMALLER = (
    "tokenizer.vocab_size=4000",
    *(f"model.{side}_layers=2" for side in ("encoder", "decoder")),
    *(f"model.{side}_ffn_dim=256" for side in ("encoder", "decoder")),
    "model.d_model=128",
)
# Updates, warmup, updates between checkpoints.
SCHEDULES = {"all": (1500, 250, 250), "unlike": (700, 150, 350)}


def captions(data: Path, work: Path, language: str, lines: slice) -> Path:
    """Some of the training captions in a language, as a file."""
    path = work / f"train.{lines.start}-{lines.stop}.{language}"
    with gzip.open(data / f"train.{language}.gz", "rt", encoding="utf-8", newline="\n") as file:
        path.write_text("".join(file.readlines()[lines]), encoding="utf-8", newline="\n")
    return path


def texts(data: Path, work: Path, name: str) -> list[str]:
    """The settings that name training and validation text of a model."""
    given = ["data.sampling_temperature=5"] if name == "temperature-5" else []
    for target in TARGETS:
        for side, language in (("source", "en"), ("target", target)):
            whole = data / f"train.{language}.gz"
            file = whole if name == "all" else captions(data, work, language, UNLIKE[target])
            given.append(f"data.pairs.en-{target}.train.{side}={file}")
            given.append(f"data.pairs.en-{target}.validation.{side}={data}/val.{language}.gz")
        if name != "all":
            given.append(f"data.pairs.en-{target}.validation.max_rows=200")
    return given


def measure(name: str, data: Path, work: Path, runs: dict[str, str]) -> None:
    """Train a model, and score it on the test set of each of its pairs."""
    steps, warmup, every = SCHEDULES["all" if name == "all" else "unlike"]
    settings = [f"training.max_steps={steps}", f"schedule.warmup_steps={warmup}"]
    settings += [f"training.{key}={every}" for key in ("eval_steps", "save_steps")]
    settings += [] if name == "all" else SMALLER
    run = train(runs.get(name), f"--config={HERE / 'model.yaml'}", f"name={name}", *settings, *texts(data, work, name))
    test = [
        f"data.pairs.en-{target}.test.{side}={data}/test_2016_flickr.{language}.gz"
        for target in TARGETS
        for side, language in (("source", "en"), ("target", target))
    ]
    asked = ["metrics.names=[bleu,chrf,off_target]", "metrics.off_target.candidates=[en,de,fr,cs]"]
    _, scores = score(name, work, f"model={run}/best", *test, *asked)
    keep_result(RESULTS, name, run_facts(run) | {"test_2016_flickr": scores})


PARTS = {name: functools.partial(measure, name) for name in TITLES}


def of_pair(scores: list[dict], target: str) -> list[dict]:
    return [entry for entry in scores if entry["data"]["domain"] == f"en-{target}"]


def off_target_text(scores: list[dict]) -> str:
    """Wrong ones of those that could be told: `0.1% of 998`."""
    (found,) = [entry for entry in scores if entry["name"] == "off-target"]
    return "-" if found["value"] is None else f"{found['value']:.1f}% of {found['n']:,}"


def unlike_text(systems: dict) -> str:
    if "temperature-1" not in systems or "temperature-5" not in systems:
        return ""
    one = systems["temperature-1"]["summary"]
    return (
        "The other two have 20,000 captions in German, 6,000 others in French and 2,000 others in Czech, "
        f"{one['parameters']:,} weights and {one['steps']:,} updates, and differ in `data.sampling_temperature` "
        "alone; their validation reads the first 200 captions. "
    )


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    systems = {name: results[name] for name in TITLES if name in results}
    plot(systems)
    whole = systems["all"]["summary"]
    lines = [
        "# Several language pairs in one model",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions, curves and every score record. The "
        "commands stand in its head.",
        "",
        "English to German, French and Czech, captions of Multi30k. The first model has all 29,000 training captions "
        f"in each language, {whole['parameters']:,} weights, {whole['steps']:,} updates of 2,048 tokens: "
        f"{whole['epochs']:.1f} passes, far from the end of what it can learn. {unlike_text(systems)}"
        "Learning rate and dropout were not tuned; the checkpoint, or the average of three, was chosen by validation "
        "BLEU, the mean over the pairs.",
        "",
        "| model | pair | CPU-minutes of updates, all pairs | validation BLEU "
        "| test_2016_flickr BLEU (95% interval) | chrF | off-target |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in systems.items():
        summary = result["summary"]
        for target in TARGETS:
            validated, tested = (of_pair(scores, target) for scores in (summary["scores"], result["test_2016_flickr"]))
            bleu = next(entry["value"] for entry in validated if entry["name"] == "BLEU")
            lines.append(
                f"| {TITLES[name]} | en-{target} | {summary['cpu_seconds'] / 60:.0f} | {bleu:.2f} "
                f"| {interval_text(tested, 'bleu')} | {interval_text(tested, 'chrf')} | {off_target_text(tested)} |"
            )
    signatures = {
        entry["name"]: entry["signature"] for entry in of_pair(systems["all"]["test_2016_flickr"], TARGETS[0])
    }
    processors, versions = where_measured(systems.values())
    lines += [
        "",
        f"BLEU `{signatures['BLEU']}`; off-target `{signatures['off-target']}`, of the translations long enough to "
        "tell their language. The test set was translated once for each pair of each model.",
        "",
        "![Validation BLEU of each pair against updates](results.png)",
        "",
        f"One thread each on {processors}, bfloat16; {versions}.",
        "",
    ]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


def plot(systems: dict) -> None:
    figure, axes = subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharey=True)
    for axis, target in zip(axes, TARGETS, strict=True):
        for name, result in systems.items():
            points = result["curves"][f"eval_bleu_en-{target}"]
            axis.plot(*zip(*points, strict=True), label=TITLES[name], marker="o", markersize=3)
        axis.set_title(f"en-{target}")
        axis.set_xlabel("updates")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("validation BLEU, greedy")
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "results.png", dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
