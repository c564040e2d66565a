"""What run.py measures, each in a process of its own that prints a line of JSON.

python systems.py                              the systems, and the shape that they all train
python systems.py SYSTEM WORK CPU_SECONDS      target tokens, CPU and wall seconds, from the fourth update on
python systems.py losses WORK                  losses of the same batches in `TranslationTrainer` and in the plain
                                               `Seq2SeqTrainer`, from the same weights
"""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
SHAPE = {"vocabulary": 8000, "width": 256, "layers": 6, "heads": 4, "inner": 1024, "dropout": 0.1, "smoothing": 0.1}
WARM_UP = 3  # updates that do not count
LOSSES, MEAN_OF, EXACT = 300, 50, 100  # updates whose losses are compared, the last of them, the first of them
SENTENCES = 260  # of a batch of the peers that count sentences: 4,000 target tokens on average


class Meter:
    """Counts target tokens and time from the fourth update on; says when the time is up."""

    def __init__(self, cpu_seconds: float):
        self.limit, self.updates, self.tokens, self.began = cpu_seconds, 0, 0, (0.0, 0.0)

    def update(self, tokens: int, cpu: float | None = None) -> bool:
        """Count an update that has ended. True where it was the last."""
        now = time.process_time() if cpu is None else cpu, time.perf_counter()
        self.updates += 1
        if self.updates <= WARM_UP:
            self.began = now
            return False
        self.tokens += tokens
        self.spent = tuple(end - start for end, start in zip(now, self.began, strict=True))
        return self.spent[0] >= self.limit

    def report(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "updates": self.updates - WARM_UP,
            "cpu_seconds": self.spent[0],
            "wall_seconds": self.spent[1],
        }


def watch(trainer: Any, meter: Meter) -> None:
    """Let a meter count the updates of a Trainer, of whichever kind, and end its training."""
    from transformers import TrainerCallback

    counted = []
    compute = trainer.training_step

    def training_step(model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        counted.append(int((inputs["labels"] != -100).sum()))
        return compute(model, inputs, *arguments, **options)

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = meter.update(sum(counted))
            counted.clear()

    trainer.training_step = training_step
    trainer.add_callback(Watch())


def plain_arguments(work: Path, **options: Any) -> Any:
    """Of a Seq2SeqTrainer that trains and does nothing besides."""
    from transformers import Seq2SeqTrainingArguments

    return Seq2SeqTrainingArguments(
        output_dir=tempfile.mkdtemp(dir=work),
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        **options,
    )


def seq2seq_trainer(work: Path, *, grouped: bool, tuned: bool, bf16: bool = False) -> Any:
    """The plain Seq2SeqTrainer with Transformers' own Marian model."""
    import torch
    from datasets import load_from_disk
    from transformers import MarianConfig, MarianMTModel, Seq2SeqTrainer

    if tuned:
        torch.set_float32_matmul_precision("medium")
    config = MarianConfig(
        vocab_size=SHAPE["vocabulary"],
        d_model=SHAPE["width"],
        encoder_layers=SHAPE["layers"],
        decoder_layers=SHAPE["layers"],
        encoder_attention_heads=SHAPE["heads"],
        decoder_attention_heads=SHAPE["heads"],
        encoder_ffn_dim=SHAPE["inner"],
        decoder_ffn_dim=SHAPE["inner"],
        dropout=SHAPE["dropout"],  # of residual branches and embeddings, as in hf_nmt; none in attention
        activation_function="relu",
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
        scale_embedding=True,
        attn_implementation="eager" if tuned else "sdpa",
    )
    sampling = {"train_sampling_strategy": "group_by_length", "length_column_name": "length"} if grouped else {}
    arguments = plain_arguments(
        work,
        per_device_train_batch_size=SENTENCES,
        learning_rate=5e-4,
        warmup_steps=100,
        max_steps=100_000,
        label_smoothing_factor=SHAPE["smoothing"],
        adam_beta2=0.98,
        bf16=bf16,
        **sampling,
    )
    model = MarianMTModel(config)
    return Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=load_from_disk(str(work / "pairs")), data_collator=padded
    )


def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    import torch

    def pad(name: str, fill: int) -> Any:
        longest = max(len(row[name]) for row in rows)
        return torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])

    source, labels = pad("input_ids", 0), pad("labels", -100)
    begun = torch.cat([torch.zeros_like(labels[:, :1]), labels[:, :-1].clamp_min(0)], dim=1)
    return {
        "input_ids": source,
        "attention_mask": (source != 0).long(),
        "labels": labels,
        "decoder_input_ids": begun,
    }


def translation_trainer(work: Path, *settings: str) -> Any:
    """The trainer that recipes/train.py would train with."""
    from hf_nmt.config import from_command_line
    from hf_nmt.training.preparation import open_run, prepare_training

    spec = importlib.util.spec_from_file_location("train", ROOT / "recipes" / "train.py")
    recipe = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = recipe
    spec.loader.exec_module(recipe)
    given = [
        f"output_dir={tempfile.mkdtemp(dir=work)}",
        f"data.train.source={work}/train.source",
        f"data.train.target={work}/train.target",
        "data.source_language=de",
        "data.target_language=en",
        "data.validation=null",
        f"tokenizer.path={work}/tokenizer",
        "model.norm_position=post",
        f"model.d_model={SHAPE['width']}",
        *(f"model.{side}_layers={SHAPE['layers']}" for side in ("encoder", "decoder")),
        *(f"model.{side}_attention_heads={SHAPE['heads']}" for side in ("encoder", "decoder")),
        *(f"model.{side}_ffn_dim={SHAPE['inner']}" for side in ("encoder", "decoder")),
        f"model.dropout={SHAPE['dropout']}",
        "model.max_position_embeddings=256",
        "batching.batch_tokens=4608",  # with padding: 4,000 target tokens on average
        "training.max_steps=100000",
        "schedule.warmup_steps=100",
        f"training.label_smoothing_factor={SHAPE['smoothing']}",
        "training.save_strategy=no",
        "training.use_cpu=true",
        "training.disable_tqdm=true",
        *settings,
    ]
    chosen = from_command_line(recipe.TrainRecipe, given, recipe="train", doc=None)
    arguments = chosen.arguments()
    texts = chosen.data.load()
    run = open_run("train", chosen, arguments, texts, resumed=None)
    return prepare_training(run, chosen, arguments, texts)


def marian(work: Path, meter: Meter) -> None:
    """Marian's own trainer, from the wheel `pymarian`; its CPU time is read when it has logged an update."""
    options = {
        "type": "transformer",
        "model": f"{tempfile.mkdtemp(dir=work)}/model.npz",
        "train-sets": f"{work}/train.pieces.source {work}/train.pieces.target",
        "vocabs": f"{work}/vocabulary.yml {work}/vocabulary.yml",
        "dim-emb": SHAPE["width"],
        "enc-depth": SHAPE["layers"],
        "dec-depth": SHAPE["layers"],
        "transformer-heads": SHAPE["heads"],
        "transformer-dim-ffn": SHAPE["inner"],
        "transformer-ffn-activation": "relu",
        "transformer-dropout": SHAPE["dropout"],
        "label-smoothing": SHAPE["smoothing"],
        "tied-embeddings-all": "true",
        "mini-batch-words": 4096,
        "maxi-batch": 1000,
        "learn-rate": 5e-4,
        "lr-warmup": 100,
        "clip-norm": 1,
        "cpu-threads": 1,
        "workspace": 4000,
        "disp-freq": 1,
        "disp-label-counts": "true",
        "max-length": 200,
        "shuffle-in-ram": "true",
    }
    line = " ".join(f"--{name} {value}" for name, value in options.items())
    program = f"import pymarian; pymarian.Trainer({line!r}).train()"
    labels = 0
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        for logged in process.stderr:
            if "Up. " not in logged:
                continue
            # Ep. 1 : Up. 7 : Sen. 1,834 : Cost 8.61 * 3,998 @ 3,998 after 28,035 : Time ...
            total = int(logged.split(" after ")[1].split(" :")[0].replace(",", ""))
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            if meter.update(total - labels, (int(fields[11]) + int(fields[12])) / 100):
                process.kill()
                break
            labels = total
    if meter.updates <= WARM_UP:
        raise SystemExit("pymarian logged no updates; is it installed?")


SAME_BATCHES = (
    "batching.batch_tokens=1024",
    "model.dropout=0",
    "training.label_smoothing_factor=0",  # the Trainer spreads it over the padding entry, too
    "schedule.name=constant",
    "training.max_grad_norm=1",
)


def recorded(trainer: Any) -> tuple[list[float], list[dict[str, Any]]]:
    """Train, and return the losses of the updates and their batches."""
    losses, batches = [], []
    compute = trainer.training_step

    def training_step(model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        batches.append(inputs)
        loss = compute(model, inputs, *arguments, **options)
        losses.append(float(loss))
        return loss

    trainer.training_step = training_step
    trainer.train()
    return losses, batches


def plain(
    work: Path, model: Any, batches: list[dict[str, Any]], ours: Any, updates: int, attention: str
) -> list[float]:
    """The losses of a copy of a model in the plain Trainer, fed the same batches with the same settings."""
    from transformers import Seq2SeqTrainer

    model = copy.deepcopy(model)
    model.set_attn_implementation(attention)
    trainer = Seq2SeqTrainer(
        model=model,
        args=plain_arguments(
            work,
            per_device_train_batch_size=1,
            train_sampling_strategy="sequential",
            max_steps=updates,
            learning_rate=ours.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=100,
            adam_beta1=ours.adam_beta1,
            adam_beta2=ours.adam_beta2,
            adam_epsilon=ours.adam_epsilon,
            weight_decay=ours.weight_decay,
            max_grad_norm=ours.max_grad_norm,
        ),
        train_dataset=batches,
        data_collator=lambda rows: rows[0],
    )
    losses, same = recorded(trainer)
    assert all((one["labels"] == other["labels"]).all() for one, other in zip(batches, same, strict=False))
    return losses


def losses(work: Path) -> dict[str, Any]:
    """Relative differences: the largest of the first updates in fp32, that of the mean of the last in bfloat16.

    Beside the first, what rounding alone comes to: the plain Trainer with two attentions that are equal but for it;
    and what is left of the difference where all is computed in float64.
    """
    ours = {}
    for precision, updates in (("float64", EXACT), ("fp32", EXACT), ("bf16", LOSSES)):
        trainer = translation_trainer(
            work, *SAME_BATCHES, f"training.max_steps={updates}", f"training.bf16={str(precision == 'bf16').lower()}"
        )
        if precision == "float64":
            trainer.model.double()
        model = copy.deepcopy(trainer.model)
        ours[precision], batches = recorded(trainer)
        if precision == "float64":
            exactly = plain(work, model, batches, trainer.args, EXACT, "sdpa")
    theirs = plain(work, model, batches, trainer.args, LOSSES, "sdpa")
    control = plain(work, model, batches, trainer.args, EXACT, "eager")

    def largest(losses: list[float], others: list[float] = theirs[:EXACT]) -> float:
        return max(abs(one - other) / other for one, other in zip(losses, others, strict=True))

    low, high = (sum(losses[-MEAN_OF:]) / MEAN_OF for losses in (ours["bf16"], theirs))
    return {
        f"fp32: largest relative difference of {EXACT} updates": largest(ours["fp32"]),
        "the plain Trainer with eager attention: likewise, from itself with sdpa": largest(control),
        "float64: likewise": largest(ours["float64"], exactly),
        f"bf16: of the mean loss of updates {LOSSES - MEAN_OF} to {LOSSES}": abs(low - high) / high,
        "losses": ours
        | {"Seq2SeqTrainer": theirs, "Seq2SeqTrainer, eager": control, "Seq2SeqTrainer, float64": exactly},
    }


TRAINERS = {
    "hf_nmt, bf16": (translation_trainer, ("training.bf16=true",), {}),
    "hf_nmt, fp32": (translation_trainer, (), {}),
    "Seq2SeqTrainer, random": (seq2seq_trainer, (), {"grouped": False, "tuned": False}),
    "Seq2SeqTrainer, grouped": (seq2seq_trainer, (), {"grouped": True, "tuned": False}),
    "Seq2SeqTrainer, tuned": (seq2seq_trainer, (), {"grouped": True, "tuned": True}),
    "Seq2SeqTrainer, tuned, bf16": (seq2seq_trainer, (), {"grouped": True, "tuned": True, "bf16": True}),
}


def main(argv: list[str]) -> dict[str, Any]:
    if not argv:
        return {"systems": [*TRAINERS, "Marian"], "shape": SHAPE}
    if argv[0] == "losses":
        return losses(Path(argv[1]))
    system, work, meter = argv[0], Path(argv[1]), Meter(float(argv[2]))
    if system == "Marian":
        marian(work, meter)
    else:
        import torch

        torch.set_num_threads(1)
        make, settings, options = TRAINERS[system]
        trainer = make(work, *settings, **options)
        watch(trainer, meter)
        trainer.train()
    return meter.report()


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(main(sys.argv[1:]))}\n")
