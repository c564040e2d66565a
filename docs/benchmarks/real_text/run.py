"""Train the small configurations on real text, score each finished model once, and write the page about it.

    python docs/benchmarks/real_text/run.py de-en --data FOLDER     Multi30k, an hour of one core
    python docs/benchmarks/real_text/run.py en-de --data FOLDER     Multi30k, three quarters of an hour of one core
    python docs/benchmarks/real_text/run.py en-de-20-minutes --data FOLDER     a smaller model on Multi30k
    python docs/benchmarks/real_text/run.py en-de-60-minutes --data FOLDER     likewise
    python docs/benchmarks/real_text/run.py ko-en --data FOLDER     3,400 Tatoeba pairs, minutes
    python docs/benchmarks/real_text/run.py page                    results.json -> README.md and the figure

FOLDER of Multi30k holds train, val and test_2016_flickr as `<name>.<language>.gz` (github.com/multi30k/dataset), and
tok/test_2016_flickr.lc.norm.tok.<language>. FOLDER of ko-en holds tatoeba.tsv (English, Korean, attribution) and
news.dev and jhe.dev as `<name>.<language>`. A finished or broken-off run is taken up with `--run de-en=runs/<id>`.
Everything is chosen on validation text. A test set is translated once for each model; the lower-cased tokenised BLEU
is computed from the same translations.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

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
WORK = Path("predictions/real_text")
NUM_TATOEBA_TRAIN = 3400
PENALTIES = (1.0, 1.25, 1.5)
# CPU-minutes of updates, and settings beside those of en-de_small: 3.3 and 3.4 M weights.
BUDGETS = {
    "en-de-20-minutes": (
        20,
        (
            "tokenizer.vocab_size=4000",
            "model.d_model=224",
            "model.encoder_layers=3",
            "model.decoder_layers=2",
            "model.encoder_ffn_dim=512",
            "model.decoder_ffn_dim=384",
            "model.dropout=0.12",
            "batching.batch_tokens=4096",
            "training.optim=muon",
            "training.learning_rate=1e-2",
            "training.max_steps=1560",
            "training.eval_steps=780",
            "training.save_steps=60",
            "training.save_total_limit=6",
            "schedule.warmup_steps=100",
        ),
    ),
    "en-de-60-minutes": (
        60,
        (
            "model.d_model=192",
            "model.encoder_ffn_dim=512",
            "model.decoder_ffn_dim=384",
            "model.decoder_layers=2",
            "model.dropout=0.25",
            "training.learning_rate=2.5e-3",
            "training.num_train_epochs=31",
            "training.eval_steps=2000",
            "training.save_steps=500",
        ),
    ),
}


def texts(name: str, data: Path) -> tuple[str, ...]:
    source, target = name.split("-")
    return tuple(
        f"data.{split}.{side}={data}/{file}.{language}.gz"
        for split, file in (("train", "train"), ("validation", "val"))
        for side, language in (("source", source), ("target", target))
    )


def tested(name: str, model: Path, data: Path, work: Path, *decoding: str) -> dict[str, Any]:
    """Both scores of one translation of the test set."""
    source, target = name.split("-")
    test = f"data.test.source={data}/test_2016_flickr.{source}.gz"
    folder, scores = score(
        name, work, f"model={model}", test, f"data.test.target={data}/test_2016_flickr.{target}.gz", *decoding
    )
    _, tokenised = score(
        f"{name}-tokenised",
        work,
        f"translations={folder}/translations.txt",
        f"data.source_language={source}",
        f"data.target_language={target}",
        test,
        f"data.test.target={data}/tok/test_2016_flickr.lc.norm.tok.{target}",
        "metrics.names=[bleu]",
        "metrics.lowercase=true",
        "metrics.pretokenize=predictions",
    )
    return {"test_2016_flickr": scores, "lower-cased tokenised": tokenised}


def multi30k(name: str, data: Path, work: Path, runs: dict[str, str]) -> None:
    run = train(runs.get(name), f"--config={name}_small", *texts(name, data))
    keep_result(RESULTS, name, run_facts(run) | tested(name, run / "best", data, work))


def within(name: str, minutes: int, settings: tuple[str, ...], data: Path, work: Path, runs: dict[str, str]) -> None:
    """English to German in so many CPU-minutes of updates: the last checkpoint that was written within them. The
    length penalty is chosen on validation text."""
    run = train(runs.get(name), "--config=en-de_small", *texts("en-de", data), *settings)
    spent = {}
    for folder in (run / "checkpoints").iterdir():
        state = json.loads((folder / "run_state.json").read_text(encoding="utf-8"))
        spent[state["step"]] = state["stopwatch"]["cpu_seconds"], folder
    step = max(step for step, (seconds, _) in spent.items() if seconds <= 60 * minutes)
    seconds, model = spent[step]
    validation = (f"data.test.source={data}/val.en.gz", f"data.test.target={data}/val.de.gz")
    tried = {
        penalty: score(f"{name}-{penalty}", work, f"model={model}", *validation, f"decoding.length_penalty={penalty}")
        for penalty in PENALTIES
    }
    bleu = {penalty: value_of(scores, "bleu") for penalty, (_, scores) in tried.items()}
    penalty = max(bleu, key=bleu.__getitem__)
    found = {"step": step, "cpu_seconds": seconds, "length_penalty": penalty, "validation_bleu": bleu}
    scores = tested("en-de", model, data, work / name, f"decoding.length_penalty={penalty}")
    keep_result(RESULTS, name, run_facts(run) | {"checkpoint": found} | scores)


def value_of(scores: list[dict], name: str) -> float:
    return next(entry["value"] for entry in scores if entry["name"].lower() == name)


def split_tatoeba(data: Path, work: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """3,400 pairs (Korean, English) to train on and the rest, no English sentence being in both."""
    with (data / "tatoeba.tsv").open(encoding="utf-8", newline="") as lines:
        rows = [(row[1], row[0]) for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    groups: dict[str, list[tuple[str, str]]] = {}
    for korean, english in rows:
        groups.setdefault(english.casefold(), []).append((korean, english))
    order = sorted(groups)
    random.Random(1).shuffle(order)
    pairs: tuple[list, list] = ([], [])
    for english in order:
        group = groups[english]
        pairs[len(pairs[0]) + len(group) > NUM_TATOEBA_TRAIN].extend(group)
    for name, part in zip(("train", "rest"), pairs, strict=True):
        for language, column in (("ko", 0), ("en", 1)):
            text = "".join(f"{pair[column]}\n" for pair in part)
            (work / f"tatoeba.{name}.{language}").write_text(text, encoding="utf-8")
    return pairs


def nearest_neighbours(train_pairs: list[tuple[str, str]], sources: list[str]) -> list[str]:
    """For each source the target of the training pair with the most similar source: cosine of character 1- to 3-grams
    weighted by inverse document frequency."""

    def grams(text: str) -> Counter:
        text = f" {text} "
        return Counter(text[i : i + n] for n in (1, 2, 3) for i in range(len(text) - n + 1))

    counts = [grams(source) for source, _ in train_pairs]
    frequency = Counter(gram for count in counts for gram in count)
    postings: dict[str, list[tuple[int, float]]] = {}
    for row, count in enumerate(counts):
        weights = {gram: n * math.log(len(counts) / frequency[gram]) for gram, n in count.items()}
        norm = math.sqrt(sum(weight**2 for weight in weights.values())) or 1.0
        for gram, weight in weights.items():
            postings.setdefault(gram, []).append((row, weight / norm))
    copied = []
    for source in sources:
        similarity: Counter = Counter()
        for gram, n in grams(source).items():
            for row, weight in postings.get(gram, ()):
                similarity[row] += n * math.log(len(counts) / frequency[gram]) * weight
        copied.append(train_pairs[similarity.most_common(1)[0][0]][1] if similarity else "")
    return copied


def korean_english(name: str, data: Path, work: Path, runs: dict[str, str]) -> None:
    train_pairs, _ = split_tatoeba(data, work)
    run = train(
        runs.get(name),
        "--config=ko-en_small",
        f"data.train.source={work}/tatoeba.train.ko",
        f"data.train.target={work}/tatoeba.train.en",
        f"data.validation.source={data}/jhe.dev.ko",
        f"data.validation.target={data}/jhe.dev.en",
    )
    tests = {"rest of Tatoeba": work / "tatoeba.rest", "news.dev": data / "news.dev"}
    scores: dict[str, dict] = {}
    for title, stem in tests.items():
        test = (f"data.test.source={stem}.ko", f"data.test.target={stem}.en")
        languages = ("data.source_language=ko", "data.target_language=en")
        _, ours = score(f"ko-en-{stem.name}", work, f"model={run}/best", *test)
        copied = work / f"{stem.name}.neighbours.en"
        sources = Path(f"{stem}.ko").read_text(encoding="utf-8").splitlines()
        copied.write_text("".join(f"{text}\n" for text in nearest_neighbours(train_pairs, sources)), encoding="utf-8")
        _, theirs = score(f"ko-en-{stem.name}-copied", work, f"translations={copied}", *languages, *test)
        scores[title] = {"model": ours, "nearest training neighbour": theirs}
    keep_result(RESULTS, name, run_facts(run) | {"training_pairs": len(train_pairs), "scores": scores})


PARTS = {
    name: functools.partial(part, name)
    for name, part in {"de-en": multi30k, "en-de": multi30k, "ko-en": korean_english}.items()
} | {name: functools.partial(within, name, minutes, settings) for name, (minutes, settings) in BUDGETS.items()}


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    pairs = [name for name in ("de-en", "en-de") if name in results]
    plot({name: results[name] for name in pairs})
    lines = [
        "# Real text",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions, curves and every score record.",
        "",
        "## Multi30k, 29,000 pairs",
        "",
        "| | parameters | updates | CPU-minutes of updates | validation BLEU | test_2016_flickr BLEU (95% interval) "
        "| chrF | lower-cased, tokenised BLEU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in pairs:
        result = results[name]
        summary, test = result["summary"], result["test_2016_flickr"]
        validation = value_of(summary["scores"], "bleu")
        lines.append(
            f"| {name} | {summary['parameters']:,} | {summary['steps']:,} | {summary['cpu_seconds'] / 60:.0f} "
            f"| {validation:.2f} | {interval_text(test, 'bleu')} | {interval_text(test, 'chrf')} "
            f"| {interval_text(result['lower-cased tokenised'], 'bleu')} |"
        )
    if pairs:
        result = results[pairs[0]]
        signatures = [
            next(entry["signature"] for entry in result[key] if entry["name"].lower() == "bleu")
            for key in ("test_2016_flickr", "lower-cased tokenised")
        ]
        lines += [
            "",
            f"Cased, detokenised: `{signatures[0]}`. Lower-cased, tokenised: `{signatures[1]}`, for comparison with "
            "papers that report it so; the two columns must not be compared with each other. "
            "Each test set was translated once.",
            "",
            "![Validation BLEU against updates](results.png)",
        ]
    if budgets := [name for name in BUDGETS if name in results]:
        lines += ["", *told_of_budgets({name: results[name] for name in budgets})]
    if "ko-en" in results:
        result = results["ko-en"]
        lines += [
            "",
            "## Korean to English on 3,400 Tatoeba pairs",
            "",
            f"{result['summary']['parameters']:,} parameters, {result['summary']['cpu_seconds'] / 60:.0f} CPU-minutes "
            "of updates. No English sentence of the training text is in the test text. Dropout and label smoothing "
            "were chosen on pairs held out of the 3,400, the checkpoint on jhe.dev. So little text teaches short "
            "phrases; news is far beyond it. Each test set was translated once.",
            "",
            "| test set | system | chrF (95% interval) | BLEU (95% interval) |",
            "|---|---|---|---|",
        ]
        for test, systems in results["ko-en"]["scores"].items():
            for system, scores in systems.items():
                chrf, bleu = (interval_text(scores, name) for name in ("chrf", "bleu"))
                lines.append(f"| {test} | {system} | {chrf} | {bleu} |")
    processors, versions = where_measured(results.values())
    lines += ["", f"One thread each on {processors}, bfloat16 where the settings say so; {versions}.", ""]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


def told_of_budgets(results: dict[str, Any]) -> list[str]:
    lines = [
        "## English to German by budget",
        "",
        "Multi30k, a smaller model. Of each training the last checkpoint within the CPU-minutes of updates is taken; "
        "the length penalty of beam 5 is chosen on validation text, and the test set is translated once. "
        "Transformer-Tiny (Wu et al. 2021, text only, trained until it no longer improved) reports 41.02, lower-cased "
        "and tokenised.",
        "",
        "| CPU-minutes of updates | parameters | updates | length penalty | validation BLEU | test_2016_flickr BLEU "
        "(95% interval) | chrF | lower-cased, tokenised BLEU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results.values():
        found, test = result["checkpoint"], result["test_2016_flickr"]
        penalty = found["length_penalty"]
        lines.append(
            f"| {found['cpu_seconds'] / 60:.1f} | {result['summary']['parameters']:,} | {found['step']:,} | {penalty} "
            f"| {found['validation_bleu'][str(penalty)]:.2f} | {interval_text(test, 'bleu')} "
            f"| {interval_text(test, 'chrf')} | {interval_text(result['lower-cased tokenised'], 'bleu')} |"
        )
    return lines


def plot(results: dict) -> None:
    figure, (left, right) = subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for name, result in results.items():
        for axis, curve in ((left, "eval_bleu"), (right, "loss")):
            points = result["curves"][curve]
            axis.plot(*zip(*points, strict=True), label=name, marker="o" if axis is left else None, markersize=3)
    left.set_ylabel("validation BLEU, greedy")
    right.set_ylabel("training loss, nats per token")
    for axis in (left, right):
        axis.set_xlabel("updates")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(HERE / "results.png", dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
