"""AdamW and Muon over few updates: the same model, batches and seed, each with some learning rates.

    python docs/benchmarks/optimizers/run.py adamw-0.0025 --data FOLDER     five minutes of one core, as each of these
    python docs/benchmarks/optimizers/run.py adamw-0.005  --data FOLDER
    python docs/benchmarks/optimizers/run.py muon-0.0025  --data FOLDER
    python docs/benchmarks/optimizers/run.py muon-0.005   --data FOLDER
    python docs/benchmarks/optimizers/run.py page                           results.json -> README.md

FOLDER of Multi30k holds train and val as `<name>.<language>.gz` (github.com/multi30k/dataset). English to German. All
is validation text; no test set is looked at. A broken-off run is taken up with `--run muon-0.005=runs/<id>`.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

from hf_nmt.benchmarking import command_line, keep_result, run_facts, train, where_measured

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/optimizers")
RATES = (0.0025, 0.005)
OPTIMIZERS = {"adamw": "adamw_torch_fused", "muon": "muon"}
NAMES = {"adamw": "AdamW", "muon": "Muon"}
MODEL = (
    "model.d_model=192",
    "model.encoder_ffn_dim=512",
    "model.decoder_ffn_dim=384",
    "model.decoder_layers=2",
    "model.dropout=0.2",
    "schedule.warmup_steps=100",
    "training.max_steps=600",
    "training.eval_steps=300",
    "training.save_steps=300",
)


def measure(optimizer: str, rate: float, data: Path, work: Path, runs: dict[str, str]) -> None:
    texts = [
        f"data.{split}.{side}={data}/{file}.{language}.gz"
        for split, file in (("train", "train"), ("validation", "val"))
        for side, language in (("source", "en"), ("target", "de"))
    ]
    name = f"{optimizer}-{rate}"
    settings = (f"training.optim={OPTIMIZERS[optimizer]}", f"training.learning_rate={rate}")
    run = train(
        runs.get(name), "--config=en-de_small", f"name={name}", f"output_dir={work}", *MODEL, *settings, *texts
    )
    state = json.loads((run / "checkpoints" / "step-600" / "run_state.json").read_text(encoding="utf-8"))
    keep_result(RESULTS, name, run_facts(run) | {"cpu_seconds": state["stopwatch"]["cpu_seconds"]})


PARTS = {
    f"{optimizer}-{rate}": functools.partial(measure, optimizer, rate) for optimizer in OPTIMIZERS for rate in RATES
}


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = [
        "# AdamW and Muon over few updates",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions and curves. The commands stand in its "
        "head.",
        "",
        "English to German, captions of Multi30k, 3.4 million weights, 600 updates of 2,048 tokens (two passes), a "
        "cosine to zero; the same batches, seed and first weights. Greedy translations of the 1,014 validation "
        "sentences. One seed each: differences of half a point may be chance. Processor seconds hang on what else ran "
        "on the machine.",
        "",
        "| optimizer | learning rate | validation loss | BLEU | CPU seconds of updates |",
        "|---|---|---|---|---|",
    ]
    for name in filter(results.__contains__, PARTS):
        optimizer, rate = name.split("-")
        curves = results[name]["curves"]
        loss, bleu = (dict(map(tuple, curves[f"eval_{what}"]))[600] for what in ("loss", "bleu"))
        lines.append(f"| {NAMES[optimizer]} | {rate} | {loss:.3f} | {bleu:.2f} | {results[name]['cpu_seconds']:.0f} |")
    processors, versions = where_measured(results.values())
    lines += ["", f"One thread on {processors}, bfloat16; {versions}.", ""]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    command_line(__doc__, PARTS, page, work=WORK)
