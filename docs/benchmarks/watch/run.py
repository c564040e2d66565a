"""How soon the watch finds a training that goes wrong, how often it finds fault with one that goes well, and what its
actions save.

    python docs/benchmarks/watch/run.py healthy --data FOLDER      trainings that go well, of several shapes
    python docs/benchmarks/watch/run.py sick    --data FOLDER      trainings that go wrong, watched and left alone
    python docs/benchmarks/watch/run.py saved   --data FOLDER      some of them again, with an action
    python docs/benchmarks/watch/run.py page                       results.json -> README.md

FOLDER of Multi30k holds train and val as `<name>.<language>.gz`. The
losses and gradient norms of all updates are kept, and each threshold is tried on them afterwards: what is only warned
of changes nothing in a training. A finished run is taken up with `--run NAME=runs/<id>`.
"""

from __future__ import annotations

import gzip
import json
import random
import subprocess
from pathlib import Path
from typing import Any

from hf_nmt.benchmarking import command_line, keep_result, train, where_measured
from hf_nmt.runs import read_decisions, read_metrics, series
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.training.watch import Watch
from hf_nmt.training.watch_settings import OF_UPDATES, WatchSettings

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
WORK = Path("predictions/watch")
UPDATES, GRACE = 400, 100
STRETCH = (8_500, 10_000)  # rows that are spoilt, the file read in its order: about 50 updates from the 270th on
TINY = (
    "data.source_language=en", "data.target_language=de", "data.train.streaming=true", "batching.streaming_window=500",
    "data.validation.max_rows=50", "model.d_model=64", "model.encoder_layers=2",
    "model.decoder_layers=2", "model.encoder_ffn_dim=256", "model.decoder_ffn_dim=256", "model.dropout=0.1",
    "batching.batch_tokens=1024", "training.learning_rate=2e-3", "schedule.name=constant", "schedule.warmup_steps=100",
    f"training.max_steps={UPDATES}", "training.eval_steps=100", "training.save_steps=50", "training.logging_steps=1",
    "decoding.num_beams=1", "decoding.max_length_ratio=1.2", "training.use_cpu=true",
    f"watch.grace_updates={GRACE}",
)  # fmt: skip
HEALTHY = {
    "d 64": (),
    "d 64, post-norm, batches half as large": ("model.norm_position=post", "batching.batch_tokens=512", "seed=2"),
    "d 128, shuffled, dropout 0.3": (
        "model.d_model=128",
        "data.train.streaming=false",
        "batching.streaming_window=50_000",
        "model.dropout=0.3",
        "seed=3",
    ),
}
TOO_HIGH = ("model.norm_position=post", "training.learning_rate=6e-2", "schedule.warmup_steps=300")
OVERFLOWS = ("training.optim=sgd", "training.learning_rate=1000", "training.max_grad_norm=0")
SICK = {
    "targets of other sources": ("misaligned", ()),
    "one word again and again": ("repeated", ()),
    "random letters": ("letters", ()),
    "learning rate 30 times too high": ("clean", TOO_HIGH),
    "SGD that overflows": ("clean", OVERFLOWS),
}

SAVED = {
    "skip": (
        "random letters", ("watch.loss_spike.action=skip", "watch.loss_spike.deviations=5", "watch.max_skips=100"),
    ),
    "roll_back": ("one word again and again", ("watch.score_collapse.action=roll_back",)),
    "lower_learning_rate": (
        "learning rate 30 times too high", ("watch.gradient_norm.action=lower_learning_rate", "watch.max_lowerings=6"),
    ),
}  # fmt: skip
TRIED = {
    ("loss_spike", "deviations"): (2, 3, 4, 5, 6, 8, 10),
    ("gradient_norm", "times_median"): (2, 3, 4, 5, 7, 10),
    ("score_collapse", "lost_share"): (0.3, 0.5, 0.7),
    ("repetition", "excess_share"): (0.05, 0.1, 0.2, 0.3),
    ("length_ratio", "lowest"): (0.3, 0.5, 0.7),
    ("length_ratio", "highest"): (1.5, 2.0, 3.0),
}


def texts(data: Path, work: Path) -> None:
    """The training text as plain files, and copies of it in which a stretch of the targets is spoilt."""
    lines = {}
    for language in ("en", "de"):
        with gzip.open(data / f"train.{language}.gz", "rt", encoding="utf-8", newline="\n") as file:
            lines[language] = file.read().splitlines()
    (work / "train.en").write_text("\n".join(lines["en"]) + "\n", encoding="utf-8")
    chance = random.Random(1)
    first, last = STRETCH
    good = lines["de"][first:last]
    letters = "abcdefghijklmnopqrstuvwxyz "
    spoilt = {
        "clean": good,
        "misaligned": chance.sample(good, len(good)),
        "repeated": [" ".join(["Mann"] * len(line.split())) for line in good],
        "letters": ["".join(chance.choices(letters, k=len(line) // 5)) for line in good],
    }
    for name, targets in spoilt.items():
        whole = [*lines["de"][:first], *targets, *lines["de"][last:]]
        (work / f"{name}.de").write_text("\n".join(whole) + "\n", encoding="utf-8")
    shape = TokenizerSettings(vocab_size=2000)
    tokenizer = train_tokenizer(lines["en"], lines["de"], shape, source_language="en", target_language="de")
    tokenizer.save_pretrained(work / "tokenizer")


def trained(data: Path, work: Path, runs: dict[str, str], name: str, text: str, *settings: str) -> dict[str, Any]:
    """Train, and return the numbers of every update and validation; a training that stops ends where it does."""
    if not (work / "tokenizer").exists():
        texts(data, work)
    files = [
        f"data.train.source={work}/train.en", f"data.train.target={work}/{text}.de",
        f"data.validation.source={data}/val.en.gz", f"data.validation.target={data}/val.de.gz",
        f"tokenizer.path={work}/tokenizer",
    ]  # fmt: skip
    label = "".join(letter if letter.isalnum() else "_" for letter in name)
    try:
        run = train(runs.get(name), *TINY, *files, *settings, f"name={label}", f"output_dir={work}")
    except subprocess.CalledProcessError:
        run = max(work.glob(f"{label}-*"))
        if [entry["watch"]["action"] for entry in read_decisions(run)][-1:] != ["stop"]:
            raise
    summary = run / "summary.json"
    told = json.loads(summary.read_text(encoding="utf-8")) if summary.exists() else {}
    metrics = read_metrics(run)
    curves = {}
    for metric in (
        "loss",
        "grad_norm",
        *(f"eval_{one}" for one in ("loss", "bleu", "chrf", "repetition", "length_ratio")),
    ):
        steps, values = series(metrics, metric)
        curves[metric] = [[step, float(f"{value:.5g}")] for step, value in zip(steps, values, strict=True)]
    decisions = [entry["watch"] | {"step": entry["step"]} for entry in read_decisions(run)]
    return {"text": text, "settings": [*settings], "curves": curves, "decisions": decisions,
            "cpu_seconds": told.get("cpu_seconds"), "finished": summary.exists()}  # fmt: skip


def healthy(data: Path, work: Path, runs: dict[str, str]) -> None:
    for name, settings in HEALTHY.items():
        keep_result(RESULTS, f"healthy: {name}", trained(data, work, runs, name, "clean", *settings))


def sick(data: Path, work: Path, runs: dict[str, str]) -> None:
    for name, (text, settings) in SICK.items():
        keep_result(RESULTS, f"sick: {name}", trained(data, work, runs, name, text, *settings))


def saved(data: Path, work: Path, runs: dict[str, str]) -> None:
    for action, (name, settings) in SAVED.items():
        text, others = SICK[name]
        keep_result(RESULTS, f"saved: {action}", trained(data, work, runs, action, text, *others, *settings))


def found(result: dict[str, Any], check: str, **threshold: float) -> list[int]:
    """The updates or validations that one check finds fault with; only the first of several in a row."""
    watch = Watch(WatchSettings.model_validate({"grace_updates": GRACE, check: threshold}))
    curves = result["curves"]
    if check in OF_UPDATES:
        norms = dict(curves["grad_norm"])
        judged = [(step, watch.judge_update(step, loss, norms.get(step))) for step, loss in curves["loss"]]
    else:
        names = ("bleu", "chrf", "repetition", "length_ratio")
        validations: dict[int, dict[str, float]] = {}
        for name in names:
            for step, value in curves.get(f"eval_{name}", []):
                validations.setdefault(step, {})[name] = value
        judged = [(step, watch.judge_validation(step, values)) for step, values in validations.items()]
    return [step for step, decisions in judged if any(decision.check == check for decision in decisions)]


def fault_began(results: dict[str, Any], name: str) -> int:
    """The first update whose loss is not that of the training on the clean text; with another rate, the first of all.

    Until its spoilt rows come, a training is that on the clean text, bit for bit.
    """
    clean, result = results["healthy: d 64"], results[f"sick: {name}"]
    if result["text"] == "clean":
        return 1
    pairs = zip(clean["curves"]["loss"], result["curves"]["loss"], strict=False)
    return next(step for (step, expected), (_, loss) in pairs if loss != expected)


def table(results: dict[str, Any], sick: list[str], check: str, key: str, values: tuple[float, ...]) -> list[str]:
    default = getattr(getattr(WatchSettings(), check), key)
    healthy_runs = [results[f"healthy: {name}"] for name in HEALTHY]
    kind = "loss" if check in OF_UPDATES else "eval_loss"
    first = max(GRACE, WatchSettings().window_updates) if check in OF_UPDATES else GRACE
    judged = sum(step > first for result in healthy_runs for step, _ in result["curves"][kind])
    rows = [
        f"| `{check}.{key}` | found in {judged:,} healthy | {' | '.join(sick)} |",
        "|---|---|" + "---|" * len(sick),
    ]
    for value in values:
        alarms = sum(len(found(result, check, **{key: value})) for result in healthy_runs)
        per = f" ({1000 * alarms / judged:.1f} of 1,000)" if alarms and check in OF_UPDATES else ""
        cells = []
        for name in sick:
            began = fault_began(results, name)
            steps = [step for step in found(results[f"sick: {name}"], check, **{key: value}) if step >= began]
            cells.append(f"{steps[0] - began + 1}" if steps else "-")
        mark = "**" if value == default else ""
        rows.append(f"| {mark}{value:g}{mark} | {alarms}{per} | {' | '.join(cells)} |")
    return ["", *rows]


def last(result: dict[str, Any], curve: str) -> str:
    values = result["curves"][f"eval_{curve}"]
    return f"{values[-1][1]:.2f}" if values and result["finished"] else "-"


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    sick = [name for name in SICK if f"sick: {name}" in results]
    text = [
        "# Watch",
        "",
        "Made by `run.py` from `results.json`, which holds settings, versions, and the numbers of every update.",
        "",
        f"Tiny trainings on Multi30k (en-de), {UPDATES} updates, judged from update {GRACE} on against the last "
        f"{WatchSettings().window_updates}. Healthy: {'; '.join(HEALTHY)}. Sick: about 50 updates from the "
        f"{fault_began(results, 'targets of other sources')}th on with spoilt targets, or a learning rate far too "
        "high from the start. A row tells how often a threshold finds fault with healthy updates or validations, and "
        "after how many updates of a fault it is found first; the default is bold.",
    ]
    for (check, key), values in TRIED.items():
        text += table(results, sick, check, key, values)
    stopped = [
        (name, one) for name in sick for one in results[f"sick: {name}"]["decisions"] if one["action"] == "stop"
    ]
    text += ["", *(f"{name}, with the defaults: {one['told']}" for name, one in stopped)]
    text += [
        "",
        "## What the actions save",
        "",
        "The same trainings with an action; of the validation at the end, the loss and chrF. Without the fault: "
        f"{last(results['healthy: d 64'], 'loss')} and {last(results['healthy: d 64'], 'chrf')}.",
        "",
        "| fault | action | taken | left alone | with the action |",
        "|---|---|---|---|---|",
    ]
    for action, (name, settings) in SAVED.items():
        if name not in sick or f"saved: {action}" not in results:
            continue
        left, result = results[f"sick: {name}"], results[f"saved: {action}"]
        taken = [one["step"] for one in result["decisions"] if one["action"] == action]
        at = f"{len(taken)} times, from update {taken[0]} to {taken[-1]}" if taken else "never"
        ends = [f"{last(run, 'loss')}, {last(run, 'chrf')}" for run in (left, result)]
        text.append(f"| {name} | `{' '.join(settings)}` | {at} | {ends[0]} | {ends[1]} |")
    processor, versions = where_measured(results.values())
    text += ["", f"{processor}; {versions}.", ""]
    (HERE / "README.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    command_line(__doc__, {"healthy": healthy, "sick": sick, "saved": saved}, page, work=WORK)
