"""French to English on 10,000 pairs: from new weights, and from a German-English model, at the same cost.

    python docs/benchmarks/fine_tuning/run.py parent    --data FOLDER      half an hour of one core
    python docs/benchmarks/fine_tuning/run.py scratch   --data FOLDER
    python docs/benchmarks/fine_tuning/run.py continued --data FOLDER      after parent
    python docs/benchmarks/fine_tuning/run.py adapted   --data FOLDER      after parent
    python docs/benchmarks/fine_tuning/run.py page                         results.json -> README.md and the figure

FOLDER of Multi30k holds train, val and test_2016_flickr as `<name>.<language>.gz`. Multi30k has the same captions in
all languages, so parent and child are given different ones: the first 19,000 to the parent, the last 10,000 to the
child. A finished or broken-off run is taken up with `--run scratch=runs/<id>`. The test set is translated once for
each of the three models.
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
    recipe,
    run_facts,
    score,
    subplots,
    train,
    where_measured,
)

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/fine_tuning")
NUM_PARENT, NUM_CHILD = 19_000, 10_000
TITLES = {
    "scratch": "new weights",
    "continued": "the German-English model, its own vocabulary",
    "adapted": "the German-English model, vocabulary adapted",
}
# The same for all three: updates of 2,048 tokens. A vocabulary that fits the text worse makes fewer passes of them.
SCHEDULE = (
    "training.max_steps=1300",
    "schedule.warmup_steps=200",
    "training.eval_steps=150",
    "training.save_steps=150",
)


def captions(data: Path, work: Path, name: str, language: str) -> Path:
    """The captions of the parent or of the child in one language."""
    with gzip.open(data / f"train.{language}.gz", "rt", encoding="utf-8", newline="\n") as file:
        lines = file.readlines()
    path = work / f"{name}.{language}"
    path.write_text(
        "".join(lines[:NUM_PARENT] if name == "parent" else lines[-NUM_CHILD:]), encoding="utf-8", newline="\n"
    )
    return path


def texts(data: Path, work: Path, name: str, source: str) -> list[str]:
    return [
        f"data.train.source={captions(data, work, name, source)}",
        f"data.train.target={captions(data, work, name, 'en')}",
        f"data.validation.source={data}/val.{source}.gz",
        f"data.validation.target={data}/val.en.gz",
    ]


def parent(data: Path, work: Path, runs: dict[str, str]) -> None:
    run = train(runs.get("parent"), "--config=de-en_small", "name=parent", *texts(data, work, "parent", "de"))
    (work / "parent.json").write_text(json.dumps({"run": str(run)}), encoding="utf-8")
    keep_result(RESULTS, "parent", run_facts(run))


def child(name: str, data: Path, work: Path, runs: dict[str, str]) -> None:
    """Train a French-English model the one way or the other, and score it on the test set."""
    settings = ["--config=de-en_small", f"name={name}", "data.source_language=fr", *SCHEDULE]
    corpus = texts(data, work, "child", "fr")
    adapted = None
    if name != "scratch":
        model = f"{json.loads((work / 'parent.json').read_text(encoding='utf-8'))['run']}/best"
        if name == "adapted":
            model, adapted = adapt(model, work, corpus)
        settings = [
            f"--config={HERE / 'child.yaml'}",
            f"name={name}",
            f"model.pretrained={model}",
            *SCHEDULE,
        ]
    run = train(runs.get(name), *settings, *corpus)
    test = [
        f"data.test.{side}={data}/test_2016_flickr.{code}.gz" for side, code in (("source", "fr"), ("target", "en"))
    ]
    _, scores = score(name, work, f"model={run}/best", *test)
    keep_result(RESULTS, name, run_facts(run) | {"test_2016_flickr": scores, "vocabulary": adapted})


def adapt(model: str, work: Path, corpus: list[str]) -> tuple[str, dict]:
    """The parent with pieces for French, and the report of `recipes/adapt_vocabulary.py`."""
    output = work / "adapted_vocabulary"
    settings = ["trim=true", "grow=3000", "grow_from=source", "data.source_language=fr"]
    train_texts = [argument for argument in corpus if argument.startswith("data.train.")]
    if not output.exists():
        where = [f"model={model}", f"output={output}", "data.target_language=en"]
        recipe("adapt_vocabulary", *where, *settings, *train_texts)
    return str(output), json.loads((output / "vocabulary.json").read_text(encoding="utf-8"))


PARTS = {"parent": parent, **{name: functools.partial(child, name) for name in TITLES}}


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    systems = {name: results[name] for name in TITLES if name in results}
    plot(systems)
    born = results["parent"]["summary"]
    bleu = next(entry["value"] for entry in born["scores"] if entry["name"].lower() == "bleu")
    lines = [
        "# Fine-tuning against new weights",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions, curves and every score record.",
        "",
        f"French to English on {NUM_CHILD:,} captions of Multi30k; the parent is a German-English model of "
        f"{born['parameters']:,} weights, trained on {NUM_PARENT:,} other captions for {born['cpu_seconds'] / 60:.0f} "
        f"CPU-minutes (validation BLEU {bleu:.2f}). All three children are trained for 1,300 updates with "
        "the same token budget, schedule and dropout, at a learning rate of 1.5e-3 from new weights and "
        "1e-3 from the parent's (neither was tuned); the parent's own cost comes on top where there is one. "
        "The parent's vocabulary spells French in small pieces, so that fewer pairs fit into an update; adapted, it "
        "lost the pieces that the new text does not use and was given 3,000 learnt from its French side, with "
        "`recipes/adapt_vocabulary.py`.",
        "",
        "| start | epochs | updates | CPU-minutes of updates | validation BLEU "
        "| test_2016_flickr BLEU (95% interval) | chrF |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in systems.items():
        summary, test = result["summary"], result["test_2016_flickr"]
        validation = next(entry["value"] for entry in summary["scores"] if entry["name"].lower() == "bleu")
        lines.append(
            f"| {TITLES[name]} | {summary['epochs']:.1f} | {summary['steps']:,} | {summary['cpu_seconds'] / 60:.0f} "
            f"| {validation:.2f} | {interval_text(test, 'bleu')} | {interval_text(test, 'chrf')} |"
        )
    signature = next(
        entry["signature"] for entry in systems["scratch"]["test_2016_flickr"] if entry["name"].lower() == "bleu"
    )
    processors, versions = where_measured(systems.values())
    lines += [
        "",
        f"`{signature}`. The test set was translated once for each model.",
        "",
        "![Validation BLEU against updates](results.png)",
        "",
        f"One thread each on {processors}, bfloat16; {versions}.",
        "",
    ]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


def plot(systems: dict) -> None:
    figure, axis = subplots(figsize=(6, 3.6), layout="constrained")
    for name, result in systems.items():
        axis.plot(*zip(*result["curves"]["eval_bleu"], strict=True), label=TITLES[name], marker="o", markersize=3)
    axis.set_ylabel("validation BLEU, greedy")
    axis.set_xlabel("updates")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    figure.savefig(HERE / "results.png", dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
