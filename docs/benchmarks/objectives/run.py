"""What an update costs with each objective, and what each does in a short training.

    python docs/benchmarks/objectives/run.py cost  --data FOLDER      three minutes of one core
    python docs/benchmarks/objectives/run.py shown --data FOLDER      three minutes of one core
    python docs/benchmarks/objectives/run.py page                     results.json -> README.md

FOLDER of Multi30k holds train and val as `<name>.<language>.gz`. Costs are processor seconds of one process, the
objectives in turn on the same batches. A finished or broken-off run is taken up with `--run plain=runs/<id>`.
"""

from __future__ import annotations

import gzip
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from hf_nmt.batching import TranslationCollator
from hf_nmt.benchmarking import command_line, keep_result, run_facts, train, where_measured
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.training.cross_entropy import CrossEntropy, Objective
from hf_nmt.training.model_building import ModelSettings, build_model
from hf_nmt.training.moving_average import MovingAverage, MovingAverageSettings
from hf_nmt.training.r_drop import RDrop, RDropSettings
from hf_nmt.training.scheduled_sampling import ScheduledSampling, ScheduledSamplingSettings, special_ids

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/objectives")
NUM_PAIRS, PAIRS_OF_BATCH, NUM_BATCHES, ROUNDS = 4_000, 100, 3, 5
SHAPE = {
    "d_model": 256, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512, "dropout": 0.3,
}  # fmt: skip
TITLES = {
    "plain": "cross-entropy",
    "ema": "with a moving average",
    "sampling": "scheduled sampling",
    "r_drop": "R-Drop",
    "both": "both of these",
}
TINY = (
    "data.source_language=en", "data.target_language=de", "data.validation.max_rows=100", "tokenizer.vocab_size=4000",
    "model.d_model=128", "model.encoder_layers=2", "model.decoder_layers=2", "model.encoder_ffn_dim=256",
    "model.decoder_ffn_dim=256", "model.dropout=0.1", "batching.batch_tokens=1024", "training.learning_rate=2e-3",
    "schedule.name=constant", "schedule.warmup_steps=50", "training.max_steps=150", "training.eval_steps=75",
    "training.save_steps=75", "decoding.num_beams=1", "decoding.max_length_ratio=1.2", "training.use_cpu=true",
    "training.logging_steps=25",
)  # fmt: skip
SHOWN = {
    "plain": ("objective.ema.decay=0.99",),
    "sampling": ("objective.scheduled_sampling.probability=0.3", "objective.scheduled_sampling.start_steps=25"),
    "r_drop": ("objective.r_drop.alpha=2.5",),
}


def lines(data: Path, language: str) -> list[str]:
    with gzip.open(data / f"train.{language}.gz", "rt", encoding="utf-8", newline="\n") as file:
        return [line.strip() for line, _ in zip(file, range(NUM_PAIRS), strict=False)]


def cost(data: Path, work: Path, runs: dict[str, str]) -> None:
    """Processor seconds of each update, every objective in turn on each batch, over several rounds."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    sources, targets = lines(data, "en"), lines(data, "de")
    tokenizer = train_tokenizer(
        sources, targets, TokenizerSettings(vocab_size=6000), source_language="en", target_language="de"
    )
    model = build_model(ModelSettings(**SHAPE), tokenizer, source_language="en", target_language="de").train()
    rows = [
        {"input_ids": source, "labels": target}
        for source, target in zip(
            tokenizer(sources)["input_ids"], tokenizer(text_target=targets)["input_ids"], strict=True
        )
    ]
    rows.sort(key=lambda row: len(row["labels"]))
    starts = [len(rows) * (2 * number + 1) // (2 * NUM_BATCHES) for number in range(NUM_BATCHES)]
    collator = TranslationCollator.for_model(model)
    batches = [collator(rows[start : start + PAIRS_OF_BATCH]) for start in starts]
    average = MovingAverage(model, MovingAverageSettings())
    seconds: dict[str, list[float]] = {name: [] for name in TITLES}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    objectives = objectives_of(model, tokenizer)
    for name, objective in objectives.items():  # once for nothing
        update(objective, model, batches[0], optimizer, average if name == "ema" else None)
    for _ in range(ROUNDS):
        took = dict.fromkeys(TITLES, 0.0)
        for batch in batches:
            for name, objective in objectives.items():
                before = time.process_time()
                update(objective, model, batch, optimizer, average if name == "ema" else None)
                took[name] += time.process_time() - before
        for name, value in took.items():
            seconds[name].append(value / NUM_BATCHES)
    tokens = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    sizes = {"target_tokens_of_batch": tokens / NUM_BATCHES, "parameters": model.num_parameters()}
    keep_result(RESULTS, "cost", {"cpu_seconds_of_update": seconds, "shape": SHAPE, **sizes})


def objectives_of(model: Any, tokenizer: Any) -> dict[str, Objective]:
    settings = ScheduledSamplingSettings(probability=0.3, ramp_steps=0)
    special = special_ids(tokenizer)
    plain, twice = CrossEntropy(model, 0.1), RDrop(model, 0.1, RDropSettings())
    found: dict[str, Objective] = {
        "plain": plain,
        "ema": plain,
        "sampling": ScheduledSampling(plain, settings, model, special, seed=1),
        "r_drop": twice,
        "both": ScheduledSampling(twice, settings, model, special, seed=1),
    }
    for objective in found.values():
        objective.begin(1)
    return found


def update(objective: Objective, model: Any, batch: dict, optimizer: Any, average: MovingAverage | None) -> None:
    objective(model, batch, 0).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if average is not None:
        average.update()
    optimizer.zero_grad()


def shown(data: Path, work: Path, runs: dict[str, str]) -> None:
    """Short trainings of a tiny model, alike but for the objective."""
    texts = [
        f"data.{split}.{side}={data}/{name}.{language}.gz"
        for split, name in (("train", "train"), ("validation", "val"))
        for side, language in (("source", "en"), ("target", "de"))
    ]
    for name, settings in SHOWN.items():
        run = train(runs.get(name), *TINY, *texts, *settings, f"name={name}", f"output_dir={work}")
        facts = run_facts(run)
        entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for curve in ("scheduled_sampling_probability", "r_drop_divergence"):
            facts["curves"][curve] = [[entry["step"], entry["value"]] for entry in entries if entry["name"] == curve]
        keep_result(RESULTS, name, facts | {"objective": [*settings]})


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    measured = results["cost"]
    of_plain = measured["cpu_seconds_of_update"]["plain"]
    text = [
        "# Objectives",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions, curves and every round.",
        "",
        f"What an update costs on Multi30k (en-de): {measured['parameters']:,} weights, batches of "
        f"{measured['target_tokens_of_batch']:,.0f} target tokens, float32, one thread; processor seconds, the "
        "objectives in turn on the same batches. The ratio is the median of those of the rounds, with the lowest and "
        "the highest.",
        "",
        "| objective | CPU-seconds of an update | against cross-entropy |",
        "|---|---|---|",
    ]
    for name, title in TITLES.items():
        values = measured["cpu_seconds_of_update"][name]
        ratios = [value / plain for value, plain in zip(values, of_plain, strict=True)]
        text.append(
            f"| {title} | {statistics.median(values):.2f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) |"
        )
    runs = {name: results[name] for name in SHOWN if name in results}
    if runs:
        text += [
            "",
            "Shown once on real text: a tiny model (d 128, 2+2 layers), 150 updates, 100 captions of the validation "
            "text, greedy. So few updates of so small a model tell that a thing runs, not whether it helps.",
            "",
            "| objective | loss at the end | validation loss | BLEU | of the candidates for `best/` | CPU-seconds |",
            "|---|---|---|---|---|---|",
        ]
        for name, run in runs.items():
            curves, summary = run["curves"], run["summary"]
            scores = ", ".join(f"{one['kind']} {one['metrics']['bleu']:.2f}" for one in summary["candidates"])
            text.append(
                f"| {TITLES['ema' if name == 'plain' else name]} | {curves['loss'][-1][1]:.3f} "
                f"| {curves['eval_loss'][-1][1]:.3f} | {curves['eval_bleu'][-1][1]:.2f} "
                f"| {scores} | {summary['cpu_seconds']:.0f} |"
            )
        for name, curve in (("sampling", "scheduled_sampling_probability"), ("r_drop", "r_drop_divergence")):
            if name in runs:
                course = ", ".join(f"{value:.2f} at {step}" for step, value in runs[name]["curves"][curve][::2])
                text += ["", f"`{curve}`: {course}."]
    processor, versions = where_measured([measured])
    text += ["", f"{processor}; {versions}.", ""]
    (HERE / "README.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    command_line(__doc__, {"cost": cost, "shown": shown}, page, work=WORK)
