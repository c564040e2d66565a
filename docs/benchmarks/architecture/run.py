"""Small models of one size: pre- against post-norm, deep against wide, layers in the encoder or in both, SSRU.

    python docs/benchmarks/architecture/run.py balanced      --data FOLDER   some minutes of one core, as each of these
    python docs/benchmarks/architecture/run.py post_norm     --data FOLDER
    python docs/benchmarks/architecture/run.py deep          --data FOLDER
    python docs/benchmarks/architecture/run.py wide          --data FOLDER
    python docs/benchmarks/architecture/run.py deep_encoder  --data FOLDER
    python docs/benchmarks/architecture/run.py ssru          --data FOLDER
    python docs/benchmarks/architecture/run.py decoding      --data FOLDER   a minute: all models of --work, in turn
    python docs/benchmarks/architecture/run.py unfinished    --data FOLDER   keeps what broken-off runs of --work tell
    python docs/benchmarks/architecture/run.py page                          results.json -> README.md and the figure

FOLDER of Multi30k holds train and val as `<name>.<language>.gz` (github.com/multi30k/dataset). English to German. All
models have the same text, batches, updates and settings but those named in SHAPES. There is no test set here. A
finished or broken-off run is taken up with `--run balanced=runs/<id>`; the others are compared with the balanced one,
if it is there. Runs are put into --work; `recipes/compare_runs.py` makes a page of them with every curve.
"""

from __future__ import annotations

import functools
import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any

from hf_nmt.benchmarking import command_line, keep_result, recipe, run_facts, train
from hf_nmt.reporting import Curve, Panel, draw_curves

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/architecture")
ROUNDS = 3
CURVES = ("loss", "eval_loss", "eval_bleu", "eval_chrf")


def shape(width: int, layers: tuple[int, int], ffn: tuple[int, int], **others: str) -> tuple[str, ...]:
    """Settings of a model: heads 32 wide, (encoder, decoder)."""
    given = {"d_model": width} | others
    for side, depth, inner in zip(("encoder", "decoder"), layers, ffn, strict=True):
        given |= {f"{side}_layers": depth, f"{side}_ffn_dim": inner, f"{side}_attention_heads": width // 32}
    return tuple(f"model.{key}={value}" for key, value in given.items())


# The widths of the feed-forward blocks make the numbers of weights alike.
SHAPES = {
    "balanced": shape(128, (3, 3), (512, 512)),
    "post_norm": shape(128, (3, 3), (512, 512), norm_position="post"),
    "deep": shape(96, (6, 6), (392, 392)),
    "wide": shape(160, (2, 2), (448, 448)),
    "deep_encoder": shape(128, (6, 1), (472, 472)),
    "ssru": shape(128, (3, 3), (512, 640), decoder_layer_type="ssru"),
}
TITLES = {
    "balanced": "3+3 layers, d 128, pre-norm",
    "post_norm": "the same, post-norm",
    "deep": "deep: 6+6, d 96",
    "wide": "wide: 2+2, d 160",
    "deep_encoder": "deep encoder: 6+1, d 128",
    "ssru": "SSRU decoder: 3+3, d 128",
}


def newest_run(work: Path, name: str, *, finished: bool = True) -> Path | None:
    """The newest finished run of a model, or the newest that is not finished."""
    found = sorted((work / "runs").glob(f"{name}-2*"))
    records = ((run, run / "run.json") for run in found)
    states = [(run, json.loads(record.read_text(encoding="utf-8"))["status"]) for run, record in records]
    fitting = [run for run, status in states if (status == "finished") is finished]
    return fitting[-1] if fitting else None


def measure(name: str, data: Path, work: Path, runs: dict[str, str]) -> None:
    """Train a model, and compare it with the balanced one."""
    texts = [
        f"data.{split}.{side}={data}/{file}.{language}.gz"
        for split, file in (("train", "train"), ("validation", "val"))
        for side, language in (("source", "en"), ("target", "de"))
    ]
    config = f"--config={HERE / 'model.yaml'}"
    run = train(runs.get(name), config, f"name={name}", f"output_dir={work / 'runs'}", *SHAPES[name], *texts)
    balanced = Path(runs["balanced"]) if "balanced" in runs else newest_run(work, "balanced")
    if balanced is not None and name != "balanced":
        recipe("report_run", str(run), f"baseline={balanced}")
    compared = compared_alone(run, work)
    report = json.loads((run / "training_report.json").read_text(encoding="utf-8"))
    facts = {key: value for key, value in run_facts(run).items() if key != "curves"}
    against = (report["baseline"] or {}).get("significance", {})
    found = {"compared": compared, "against_balanced": against, "choices": report["choices"]}
    keep_result(RESULTS, name, facts | found)


def compared_alone(run: Path, work: Path) -> dict[str, Any]:
    """What `recipes/compare_runs.py` tells of a run, finished or not."""
    recipe("compare_runs", str(run), f"output={work / 'comparison'}", "overwrite=true")
    (compared,) = json.loads((work / "comparison" / "comparison.json").read_text(encoding="utf-8"))["runs"]
    compared["curves"] = {key: curve for key, curve in compared["curves"].items() if key in CURVES}
    return compared | {"folder": run.name}


def unfinished(data: Path, work: Path, runs: dict[str, str]) -> None:
    """Keep what runs tell that are not finished, of models that have no other."""
    for name in SHAPES:
        run = newest_run(work, name, finished=False)
        if run is not None and newest_run(work, name) is None:
            keep_result(RESULTS, name, {"compared": compared_alone(run, work)})


def decoding(data: Path, work: Path, runs: dict[str, str]) -> None:
    """Processor seconds of translating the validation text greedily, the models in turn over several rounds."""
    import torch

    from hf_nmt.generation.decoding import DecodingSettings
    from hf_nmt.translators import load_translator

    torch.set_num_threads(1)
    folders = {name: Path(runs[name]) if name in runs else newest_run(work, name) for name in SHAPES}
    translators = {
        name: load_translator(run / "best", with_scores=False) for name, run in folders.items() if run is not None
    }
    with gzip.open(data / "val.en.gz", "rt", encoding="utf-8", newline="\n") as file:
        sources = [line.strip() for line in file]
    settings = DecodingSettings(num_beams=1)
    seconds: dict[str, list[float]] = {name: [] for name in translators}
    for number in range(ROUNDS + 1):
        for name, translator in translators.items():
            before = time.process_time()
            given = sources if number else sources[:100]  # the first round warms up
            list(translator.translate(given, settings))
            if number:
                seconds[name].append(time.process_time() - before)
    keep_result(RESULTS, "decoding", {"cpu_seconds": seconds, "sentences": len(sources), "dtype": "float32"})


PARTS = {name: functools.partial(measure, name) for name in SHAPES} | {"unfinished": unfinished, "decoding": decoding}


def score_of(result: dict[str, Any], name: str) -> float:
    """A score of the chosen model on the validation text."""
    return next(entry["value"] for entry in result["compared"]["scores"] if entry["name"].lower().startswith(name))


def against_balanced(result: dict[str, Any]) -> str:
    """Difference in BLEU and its probability if both models were equally good: `-0.52 (p 0.013)`."""
    tests = [test for tests in result["against_balanced"].values() for test in tests if test["name"] == "BLEU"]
    return (
        ", ".join(f"{test['value'] - test['baseline_value']:+.2f} (p {test['p_value']:.3f})" for test in tests) or "-"
    )


def at_its_quickest(result: dict[str, Any]) -> float:
    """Processor seconds of all updates at the speed of the quickest quarter of the logs: other programs on the machine
    take caches away, and so cost processor time too."""
    curve = result["compared"]["curves"]["loss"]
    spent = zip(
        [0, *curve["tokens"]], curve["tokens"], [0.0, *curve["cpu_seconds"]], curve["cpu_seconds"], strict=False
    )
    rates = sorted((after - before) / (tokens - had) for had, tokens, before, after in spent)
    return rates[len(rates) // 4] * result["compared"]["tokens"]


def row(name: str, result: dict[str, Any], seconds: list[float]) -> str:
    run = result["compared"]
    cells = (
        TITLES[name],
        f"{run['parameters']:,}",
        f"{run['parameters_without_embeddings']:,}",
        f"{run['cpu_seconds']:,.0f}",
        f"{at_its_quickest(result):,.0f}",
        f"{run['last']['loss']['value']:.3f}",
        f"{score_of(result, 'bleu'):.2f}",
        against_balanced(result),
        f"{score_of(result, 'chrf'):.2f}",
        f"{statistics.median(seconds):.1f}" if seconds else "-",
    )
    return f"| {' | '.join(cells)} |"


def on_the_way(started: dict[str, Any]) -> list[str]:
    """BLEU of each validation; at one update all models have had the same batches and learning rates."""
    curves = {name: result["compared"]["curves"]["eval_bleu"] for name, result in started.items()}
    steps = sorted({step for curve in curves.values() for step in curve["step"]})
    lines = [
        "Validation BLEU on the way; in a column all models have had the same batches at the same learning rates:",
        "",
        f"| model | {' | '.join(f'update {step:,}' for step in steps)} |",
        f"|---|{'---|' * len(steps)}",
    ]
    for name, curve in curves.items():
        values = dict(zip(curve["step"], curve["value"], strict=True))
        cells = (f"{values[step]:.2f}" if step in values else "-" for step in steps)
        lines.append(f"| {TITLES[name]} | {' | '.join(cells)} |")
    return [*lines, ""]


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    started = {
        name: results[name]
        for name in SHAPES
        if "eval_bleu" in results.get(name, {}).get("compared", {}).get("curves", {})
    }
    systems = {name: result for name, result in started.items() if result["compared"]["status"] == "finished"}
    runs = [result["compared"] for result in systems.values()]
    any_result = next(iter(systems.values()))
    settings = any_result["settings"]
    seconds = results.get("decoding", {}).get("cpu_seconds", {})
    plot(started)
    tokens = sorted({run["tokens"] for run in runs})
    missing = [TITLES[name] for name in SHAPES if name not in started]
    broken_off = [
        f"{TITLES[name]} (at update {started[name]['compared']['updates']:,})"
        for name in started
        if name not in systems
    ]
    text = [
        "# Shapes of a small model",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions, curves and every score record. The "
        "commands stand in its head.",
        "",
        *(
            [
                f"Not finished, and in the last table alone: {'; '.join(broken_off)}. How a training begins does not "
                "tell how it ends.",
                "",
            ]
            if broken_off
            else []
        ),
        *([f"Not trained: {'; '.join(missing)}.", ""] if missing else []),
        "English to German, captions of Multi30k, one vocabulary of "
        f"{settings['tokenizer']['vocab_size']:,} subwords for both sides, tied. Every finished model saw the "
        f"same batches: {runs[0]['updates']:,} updates, {runs[0]['epochs']:.1f} passes, "
        f"{' or '.join(f'{n:,}' for n in tokens)} "
        "tokens of both sides; learning rate, warm-up (cosine), dropout and seed are the same, and none was tuned for "
        f"any of them. All {len(SHAPES)} shapes are within 1% of each other in weights, embeddings counted: a "
        "narrower model spends less on these and more on layers, as the third column tells. Equal tokens are "
        "not equal time, which the next two tell.",
        "",
        f"**One seed each, and far from converged** after {runs[0]['epochs']:.1f} passes. How far apart two seeds of "
        "one model lie was not measured; it may be as much as rows lie apart. The p-value is of a paired test over "
        "the sentences, and tells nothing of the seed. All figures are on validation text "
        "(1,014 sentences, greedy), which also chose the checkpoint; no test set was looked at.",
        "",
        "| model | parameters | without embeddings | CPU-seconds of updates | at its quickest | loss at the end "
        "| BLEU | against the first row | chrF | CPU-seconds to translate |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(row(name, result, seconds.get(name, [])) for name, result in systems.items()),
        "",
        "At its quickest: at the speed of the quickest quarter of the logs, since other programs on a machine cost a "
        "training processor time too.",
        "",
    ]
    if seconds:
        text += [
            f"To translate: the {results['decoding']['sentences']:,} sentences, greedily, in "
            f"{results['decoding']['dtype']}; the median of {ROUNDS} rounds in which the models took turns.",
            "",
        ]
    text += on_the_way(started)
    machines = sorted({result["environment"]["processor"] for result in systems.values()})
    told = ", ".join(f"{name} {number}" for name, number in any_result["environment"]["versions"].items())
    text += [
        "![Validation BLEU against updates and processor seconds](results.png)",
        "",
        "The learning rate falls to zero at the last update, so that points before the end are not what a training of "
        "that length would reach: the right panel shows what the same updates cost, and not what each model would "
        "reach in equal time. Processor seconds hang on what else ran on the machine, which was not the same for all.",
        "",
        "Every curve and every setting that differs, as a page: "
        "`python recipes/compare_runs.py predictions/architecture/runs`.",
        "",
        f"One thread on {'; '.join(machines)}, bfloat16; {told}.",
        "",
    ]
    (HERE / "README.md").write_text("\n".join(text), encoding="utf-8")


def plot(systems: dict[str, Any]) -> None:
    panels = []
    for key, label in (("step", "updates"), ("cpu_seconds", "CPU seconds in updates")):
        curves = [(name, result["compared"]["curves"]["eval_bleu"]) for name, result in systems.items()]
        panels.append(Panel(label, [Curve(TITLES[name], curve[key], curve["value"]) for name, curve in curves]))
    draw_curves(HERE / "results.png", "Validation, greedy", "BLEU", panels)


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
