"""For every key of a recipe a change, and where it must show.

A table entry is `key: Case(changed value, where it shows, further arguments of both runs, stage)`.
"""

from __future__ import annotations

import importlib.util

from settings_walk.cases_of_data import CHECK_DATA, PREPARE_DATA, below, corpus_cases
from settings_walk.cases_of_runs import COMPARE_RUNS, PROFILE_RUN, REPORT_RUN
from settings_walk.keys import NAME, Case
from settings_walk.watch_cases import watch_cases

RUN = "files/runs/de-en-TIME"
SHORT = ("decoding.num_beams=3", "decoding.max_length_ratio=0.5", "decoding.max_length_extra=6")
MODEL = ("translations=null", "model=inputs/model", *SHORT)
MANY = ("translations=null", "model=inputs/many", *SHORT, "decoding.split_sentences=true")


def decoding_cases(sees: str, **elsewhere: Case) -> dict[str, Case]:
    """Keys of `DecodingSettings`; `elsewhere` takes the place of some."""
    sampling = ("decoding.num_beams=1", "decoding.do_sample=true")
    cases = {
        "num_beams": Case("1", sees),
        "num_return_sequences": Case("2", sees),
        "length_penalty": Case("3", sees),
        "early_stopping": Case("true", sees, ("decoding.length_penalty=3",)),
        "max_length_ratio": Case("0.2", sees),
        "max_length_extra": Case("1", sees),
        "max_target_length": Case("3", sees),
        "max_source_length": Case("8", sees),
        "no_repeat_ngram_size": Case("1", sees),
        "do_sample": Case("true", sees, ("decoding.num_beams=1",)),
        "temperature": Case("0.2", sees, sampling),
        "top_k": Case("2", sees, sampling),
        "top_p": Case("0.3", sees, sampling),
        "seed": Case("1", sees, sampling),
        "batch_tokens": Case("60", "decoded"),
        "window_size": Case("3", "decoded"),
        "split_sentences": Case("false", sees, ("decoding.split_sentences=true",)),
        "truncate": Case(
            "false", sees, ("decoding.max_source_length=8", "decoding.split_sentences=true", "decoding.truncate=true")
        ),
    }
    return cases | elsewhere


def metric_cases(sees: str) -> dict[str, Case]:
    """Keys of `MetricSettings` for English."""
    return {
        "names": Case("[bleu]", sees),
        "lowercase": Case("true", sees),
        # Without the package the refusal says which one is needed.
        "pretokenize": Case("both", sees if importlib.util.find_spec("sacremoses") else "refusal"),
        "bleu.tokenize": Case("char", sees),
        "chrf.char_order": Case("4", sees),
        "chrf.word_order": Case("2", sees),
        "ter.normalized": Case("true", sees),
        "ter.case_sensitive": Case("true", sees),
        "off_target.candidates": Case("[en,fr,cs]", sees, ("metrics.names=[bleu,off_target]",)),
        "num_bootstrap_samples": Case("0", sees),
        "confidence": Case("0.5", sees),
        "seed": Case("1", sees),
    }


# Two language pairs in place of the one.
ONE_PAIR = (
    *(f"data.{key}=null" for key in ("source_language", "target_language", "train")),
    f"data.pairs.{NAME}.train.source=inputs/train.de",
    f"data.pairs.{NAME}.train.target=inputs/train.en",
)
# Rows of two domains and two origins.
_FILE = (*(f"data.train.{side}=null" for side in ("source", "target")), "data.train.path=inputs/mixed.jsonl")
MIXED = (*_FILE, "data.mixing.by=domain")
TALK_ALONE = "{weights: {news: 0, talk: 1}}"
PAIRS = (
    *ONE_PAIR,
    "data.pairs.en-de.train.source=inputs/other_train.en",
    "data.pairs.en-de.train.target=inputs/other_train.de",
    "data.pairs.en-de.train.max_rows=8",
)
OF_PAIR = {
    "source_language": Case("da", "files/runs/da.en-en.de-TIME", PAIRS, "run"),
    "target_language": Case("nl", "files/runs/de.en-nl.de-TIME", PAIRS, "run"),
    **corpus_cases(f"data.pairs.{NAME}.train", "train", "texts/train", "run", PAIRS),
    **corpus_cases(f"data.pairs.{NAME}.validation", "val", "texts/validation", "run", PAIRS),
}

VALIDATED = ("data.validation.source=inputs/val.de", "data.validation.target=inputs/val.en")
EACH_STEP = ("training.eval_steps=1", "training.save_steps=1", "decoding.max_length_extra=1", "decoding.num_beams=1")
AT_ONCE = ("objective.scheduled_sampling.ramp_steps=0",)
SAVED_MODEL = ("model.pretrained=inputs/model",)


def schedule_cases() -> dict[str, Case]:
    """Keys of `ScheduleSettings`, each with a schedule that it belongs to."""

    def measured(quantity: str, name: str, steps: str) -> dict[str, Case]:
        """A quantity in each of its units."""
        others = (f"schedule.name={name}",)
        if quantity == "warmup":
            others = (*others, "schedule.warmup_steps=null")
        values = {"steps": steps, "epochs": "0.3", "share": "0.4"}
        return {f"{quantity}_{unit}": Case(value, "weights", others) for unit, value in values.items()}

    plateau = (
        "schedule.name=reduce_on_plateau", "schedule.warmup_steps=0", "training.learning_rate=1e-9",
        "training.max_steps=5", "schedule.patience_validations=0", *VALIDATED, *EACH_STEP,
    )  # fmt: skip
    cosine, cycle, restarts = (f"schedule.name={name}" for name in ("cosine", "one_cycle", "cosine_with_restarts"))
    return {
        "name": Case("cosine", "weights"),
        **measured("warmup", "inverse_sqrt", "2"),
        **measured("T_0", "cosine_with_restarts", "2"),
        **measured("step_size", "exponential", "2"),
        **measured("timescale", "inverse_sqrt", "2"),
        **measured("decay", "warmup_stable_decay", "2"),
        "decay_type": Case("cosine", "weights", ("schedule.name=warmup_stable_decay", "schedule.decay_steps=2")),
        "min_learning_rate": Case("1e-4", "weights", (cosine,)),
        "T_mult": Case("1", "weights", (restarts, "schedule.T_0_steps=1", "training.max_steps=4")),
        "gamma": Case("0.1", "weights", ("schedule.name=exponential",)),
        "power": Case("3", "weights", ("schedule.name=polynomial",)),
        "div_factor": Case("5", "weights", (cycle, "schedule.warmup_steps=2")),
        "final_div_factor": Case("5", "weights", (cycle, "schedule.warmup_steps=2")),
        "patience_validations": Case("2", "weights", plateau),
        "cooldown_validations": Case("2", "weights", plateau),
        "scale": Case("linear", "weights", ("schedule.scale=sqrt", "schedule.reference_tokens_per_update=64")),
        "reference_tokens_per_update": Case(
            "128", "weights", ("schedule.scale=sqrt", "schedule.reference_tokens_per_update=64")
        ),
    }  # fmt: skip


TRAIN = {
    "seed": Case("7", "weights", stage="updates"),
    "name": Case("mine", "files/runs/mine-TIME", stage="run"),
    "output_dir": Case("elsewhere", "files/elsewhere", stage="run"),
    "resume": Case("unfinished", RUN, stage="updates"),
    "data.source_language": Case("da", "files/runs/da-en-TIME", stage="run"),
    "data.target_language": Case("nl", "files/runs/de-nl-TIME", stage="run"),
    **corpus_cases("data.train", "train", "texts/train", "run"),
    "data.version": Case(
        "inputs/other_version", "texts/train", ("data.train=null", "data.version=inputs/version"), "run"
    ),
    "data.context_sentences": Case("2", "weights", ("data.train=null", "data.version=inputs/version"), "updates"),
    "data.train.streaming": Case("true", "weights", stage="updates"),
    "batching.streaming_window": Case("8", "weights", ("data.train.streaming=true",), "updates"),
    **corpus_cases("data.validation", "val", "texts/validation", "run"),
    **{f"data.pairs.<name>.{key.removeprefix(f'data.pairs.{NAME}.')}": case for key, case in OF_PAIR.items()},
    "data.pairs.<name>.train.streaming": Case("true", "weights", ONE_PAIR, "updates"),
    "data.sampling_temperature": Case("5", "batches", PAIRS, "batches"),
    "data.mixing.by": Case("origin", "batches", (*MIXED, "data.mixing.stages=[{temperature: .inf}]"), "batches"),
    "data.mixing.stages[].weights": Case(
        "{news: 1, talk: 0}", "batches", MIXED, "batches", beside="weights: {news: 1, talk: 3}"
    ),
    "data.mixing.stages[].temperature": Case("9", "batches", MIXED, "batches", beside="temperature: 2"),
    "data.mixing.stages[].until_step": Case(
        "2", "batches", MIXED, "batches", beside="temperature: 9, until_step: 1", after=TALK_ALONE
    ),
    "data.mixing.stages[].until_epoch": Case(
        "2",
        "weights",
        (*MIXED, "batching.batch_tokens=2048"),
        "updates",
        beside="temperature: 9, until_epoch: 1",
        after=TALK_ALONE,
    ),
    **below(
        "tokenizer",
        {
            "path": Case("inputs/model", "ids"),
            "algorithm": Case("unigram", "ids"),
            "vocab_size": Case("310", "ids"),
            "joint": Case("false", "ids"),
            "byte_fallback": Case("false", "ids"),
            "normalization": Case("nfc", "ids"),
            "language_tags": Case("true", "ids"),
            "source_tags": Case("[<BT>]", "ids"),
            "character_coverage": Case("0.98", "ids"),
            "max_training_sentences": Case("5", "ids"),
        },
        stage="tokenizer",
    ),
    "tokenizer.dropout": Case("0.5", "batches", stage="batches"),
    **below(
        "model",
        {
            "d_model": Case("32", "weights"),
            "encoder_layers": Case("2", "weights"),
            "decoder_layers": Case("2", "weights"),
            "decoder_layer_type": Case("ssru", "weights"),
            "encoder_attention_heads": Case("4", "weights"),
            "decoder_attention_heads": Case("4", "weights"),
            "encoder_ffn_dim": Case("16", "weights"),
            "decoder_ffn_dim": Case("16", "weights"),
            "activation_function": Case("gelu", "weights"),
            "norm_position": Case("post", "weights"),
            "position_embedding": Case("rotary", "weights"),
            "max_position_embeddings": Case("50", "weights", ("model.position_embedding=learned",)),
            "scale_embedding": Case("false", "weights"),
            "dropout": Case("0.3", "weights"),
            "attention_dropout": Case("0.1", "weights"),
            "activation_dropout": Case("0.1", "weights"),
            "tie_word_embeddings": Case("true", "weights"),
        },
        stage="updates",
    ),
    "model.pretrained": Case("inputs/other_model", "weights", SAVED_MODEL, "updates"),
    # Of a folder there is one.
    "model.revision": Case("main", "refusal", SAVED_MODEL, "run"),
    "model.source_prefix": Case("'translate: '", "batches", SAVED_MODEL, "batches"),
    **below(
        "model.adapter",
        {
            "type": Case("dora", "weights"),
            "rank": Case("3", "weights"),
            "alpha": Case("64", "weights"),
            "dropout": Case("0.3", "weights"),
            "target_modules": Case("[q_proj]", "weights"),
            "tokens": Case("[</s>]", "weights"),
        },
        context=(*SAVED_MODEL, "model.adapter.type=lora"),
        stage="updates",
    ),
    "model.quantization": Case(
        "int8",
        # Without the package the refusal says which one is needed.
        "weights" if importlib.util.find_spec("bitsandbytes") else "refusal",
        (*SAVED_MODEL, "model.adapter.type=lora"),
        "updates",
    ),
    "model.attn_implementation": Case("sdpa", "attention", ("model.attn_implementation=eager",), "batches"),
    **below(
        "batching",
        {
            "batch_tokens": Case("128", "batches"),
            # No pair fits so little.
            "memory_share": Case("1e-6", "refusal"),
            "max_sentences": Case("2", "batches"),
            "updates_per_bucket": Case("8", "batches"),
            "max_source_length": Case("16", "batches"),
            "max_target_length": Case("16", "batches"),
            "too_long": Case("truncate", "batches", ("batching.max_source_length=16",)),
            "pad_to_multiple_of": Case("16", "batches"),
        },
        stage="batches",
    ),
    "training.num_processes": Case("2", "refusal", stage="run"),
    "training.sam_rho": Case("0.05", "weights", stage="updates"),
    "training.sam_adaptive": Case("true", "weights", ("training.sam_rho=0.5",), "updates"),
    "training.matmul_precision": Case("medium", "precision", stage="batches"),
    "training.early_stopping_patience": Case("1", "steps", (*VALIDATED, *EACH_STEP, "training.learning_rate=0")),
    "training.num_average_checkpoints": Case("2", "weights", ("training.save_steps=1",)),
    "training.validation_num_beams": Case("2", "decoded", (*VALIDATED, *EACH_STEP)),
    "training.num_validation_sentences": Case("2", f"{RUN}/validation_history.json", (*VALIDATED, *EACH_STEP)),
    "training.num_sample_translations": Case("1", f"{RUN}/validation_history.json", (*VALIDATED, *EACH_STEP)),
    **below(
        "objective.ema",
        {
            "decay": Case("0.5", "weights", ("objective.ema.warmup=false",)),
            "warmup": Case("false", "weights"),
            "use_for_validation": Case("true", f"{RUN}/validation_history.json", (*VALIDATED, *EACH_STEP)),
        },
        context=("objective.ema.decay=0.9",),
    ),
    **below(
        "objective.scheduled_sampling",
        {
            "probability": Case("0.5", "weights", AT_ONCE),
            "start_steps": Case("2", "weights", AT_ONCE),
            "start_share": Case("0.6", "weights", AT_ONCE),
            "ramp_steps": Case("1", "weights"),
            "ramp_share": Case("0.3", "weights"),
            "prediction": Case("sample", "weights", AT_ONCE),
        },
        context=("objective.scheduled_sampling.probability=1",),
        stage="updates",
    ),
    "objective.r_drop.alpha": Case("5", "weights", ("objective.r_drop.alpha=1",), "updates"),
    **below("schedule", schedule_cases(), stage="updates"),
    "report.baseline": Case("inputs/edited_run", f"{RUN}/training_report.json", stage="model"),
    **below("watch", watch_cases(RUN, (*VALIDATED, *EACH_STEP)), stage="updates"),
    **below("decoding", decoding_cases("decoded"), context=VALIDATED, stage="model"),
    **below(
        "metrics",
        metric_cases(f"{RUN}/summary.json"),
        context=(*VALIDATED, "metrics.names=[bleu,chrf,ter]", "metrics.num_bootstrap_samples=50"),
        stage="model",
    ),
}
# What is saved with the model.
SAVED = {
    key: Case(case.changed, f"{RUN}/best/generation_config.json", case.context, case.stage)
    for key, case in TRAIN.items()
    if key.startswith("decoding.")
}
TRAIN |= {
    key: SAVED[key]
    for key in (
        "decoding.num_return_sequences",
        "decoding.length_penalty",
        "decoding.early_stopping",
        "decoding.temperature",
        "decoding.top_k",
        "decoding.top_p",
    )
}

SCORES = "files/predictions/good.en/TIME/scores.json"
TEXTS = "files/predictions/model/TIME/translations.txt"
BASELINE = ("baseline=inputs/poor.en", "metrics.num_paired_samples=100")

# A language pair with a name in place of the test set; its files are those of the case.
TESTED = tuple(f"data.{key}=null" for key in ("source_language", "target_language", "test"))
TESTED_FILES = (
    *TESTED,
    *(f"data.pairs.{NAME}.test.{side}=inputs/test.{end}" for side, end in (("source", "de"), ("target", "en"))),
)
TESTED_PAIR = {
    "source_language": Case("da", "files/predictions/good.en/TIME/manifest.json", TESTED_FILES),
    "target_language": Case("nl", "files/predictions/good.en/TIME/manifest.json", TESTED_FILES),
    **{
        key.removeprefix(f"data.pairs.{NAME}."): case
        for key, case in corpus_cases(f"data.pairs.{NAME}.test", "test", "texts/test", "texts", TESTED).items()
    },
}

VALIDATE = {
    "model": Case("inputs/other_model", "files/predictions/other_model/TIME/translations.txt", MODEL),
    "translations": Case("inputs/poor.en", "files/predictions/poor.en/TIME/scores.json"),
    "baseline": Case("inputs/poor.en", "files/predictions/good.en/TIME/comparisons.json"),
    "data.source_language": Case("ko", "decoded", (*MANY, "data.target_language=en")),
    "data.target_language": Case("nl", "decoded", MANY),
    **corpus_cases("data.test", "test", "texts/test", "texts"),
    **{f"data.pairs.<name>.{key}": case for key, case in TESTED_PAIR.items()},
    **below("decoding", decoding_cases(TEXTS), context=MODEL),
    # Only the best translation is scored.
    "decoding.num_return_sequences": Case("2", "refusal", MODEL),
    **below("metrics", metric_cases(SCORES)),
    "metrics.paired_test": Case("randomization", "files/predictions/good.en/TIME/comparisons.json", BASELINE),
    "metrics.num_paired_samples": Case("200", "files/predictions/good.en/TIME/comparisons.json", BASELINE),
    "per_domain": Case(
        "true", SCORES, ("data.test.source=null", "data.test.target=null", "data.test.path=inputs/test.jsonl")
    ),
    "num_samples": Case("2", "log"),
    "device": Case("nowhere", "refusal", MODEL),
    "output_dir": Case("elsewhere", "files/elsewhere"),
    "name": Case("mine", "files/predictions/mine"),
}

TRANSLATE = {
    "model": Case("inputs/other_model", "stdout"),
    "input": Case("inputs/val.de", "stdout"),
    "input_format": Case("text", "stdout", ("input=inputs/test.jsonl",)),
    "output": Case("out.en", "files/out.en"),
    "output_format": Case("jsonl", "stdout"),
    "source_language": Case("ko", "stdout", ("model=inputs/many", "target_language=en", "source_language=de")),
    "target_language": Case("nl", "stdout", ("model=inputs/many", "target_language=en")),
    **below("decoding", decoding_cases("stdout")),
    "device": Case("nowhere", "refusal"),
    "overwrite": Case("true", "files/old.en", ("output=old.en",)),
}

RECORDS = "records.jsonl"
OF_MANY = ("model=inputs/many",)

BACKTRANSLATE = {
    "model": Case("inputs/other_model", RECORDS),
    "input": Case("inputs/val.de", RECORDS),
    "output": Case("elsewhere.jsonl", "elsewhere.jsonl"),
    "source_language": Case("nl", RECORDS, OF_MANY),
    "target_language": Case("ko", RECORDS, OF_MANY),
    "tag": Case("<BT>", RECORDS),
    "domain": Case("news", RECORDS),
    "origin": Case("crawl", RECORDS),
    "licence": Case("CC0-1.0", RECORDS),
    **below("decoding", decoding_cases(RECORDS)),
    "device": Case("nowhere", "refusal"),
    "overwrite": Case("true", "old.jsonl", ("output=old.jsonl",)),
}

HALVING = ("pruning.method=successive_halving", "pruning.startup_trials=4")

TUNE = {
    "study": Case("elsewhere", "files/elsewhere"),
    "recipe": Case("validate", "trials"),
    "base": Case("debug", "trials"),
    "settings": Case("{seed: 3}", "trials"),
    "search": Case("{training: {learning_rate: {low: 0.1, high: 0.9}}}", "trials"),
    "metric": Case("bleu", "files/study/trials.tsv"),
    "sampler": Case("random", "trials", ("startup_trials=8",)),
    "startup_trials": Case("2", "trials"),
    "seed": Case("7", "trials"),
    "pruning.method": Case("none", "files/study/trials.tsv", ("pruning.startup_trials=4",)),
    "pruning.startup_trials": Case("6", "files/study/trials.tsv"),
    "pruning.halving_factor": Case("2", "files/study/trials.tsv", HALVING),
    "budget.trials": Case("3", "trials"),
    "budget.updates": Case("500", "trials"),
    "budget.cpu_minutes": Case("0.2", "trials"),
    "keep_weights": Case("all", "files/study/trials"),
}

MERGE = {
    "adapter": Case("inputs/other_adapter", "files/merged", ("adapter=inputs/adapter",)),
    "output": Case("elsewhere", "files/elsewhere"),
    "base": Case("inputs/other_model", "refusal"),
    "overwrite": Case("true", "files/old", ("output=old",)),
}

SEARCH = "files/imported/generation_config.json"
PIECES = ("vocabularies=inputs/marian/vocab.yml",)

IMPORT_MARIAN = {
    "model": Case("inputs/marian/other.npz", "files/imported/model.safetensors"),
    "vocabularies": Case("inputs/marian/twin.spm", "files/imported/vocab.json"),
    "splitters": Case(
        "inputs/marian/twin.spm", "files/imported/source.spm", (*PIECES, "splitters=inputs/marian/vocab.spm")
    ),
    "decoder": Case("inputs/marian/decoder.yml", SEARCH, ("vocabularies=inputs/marian/vocab.spm",)),
    "output": Case("elsewhere", "files/elsewhere"),
    "overwrite": Case("true", "files/old", ("output=old",)),
    "source_language": Case("de", "files/imported/tokenizer_config.json"),
    "target_language": Case("en", "files/imported/tokenizer_config.json"),
}

CARD = "hub/me/new/main/files/README.md"

PUSH = {
    "folder": Case("inputs/other_model", "hub/me/new/main/files/model.safetensors"),
    "repo": Case("me/other", "hub/me/other/main"),
    "private": Case("true", "hub/me/new/private"),
    "revision": Case("trial", "hub/me/new/trial"),
    "create_pr": Case("true", "hub/me/there/pulls", ("repo=me/there",)),
    "exist_ok": Case("false", "refusal", ("repo=me/there",)),
    "commit_message": Case("Second try", "hub/me/new/main/message"),
    "card": Case("write", CARD, ("folder=inputs/edited_run",)),
    "license": Case("mit", CARD),
    "base_model": Case("me/base", CARD),
    "num_samples": Case("1", CARD),
    "scores": Case("[inputs/scores]", CARD),
}

VOCABULARY = "files/adapted/vocabulary.json"
NO_TEXT = ("model=inputs/many", "trim=false", "data.train=null")

ADAPT_VOCABULARY = {
    "trim": Case("false", VOCABULARY, ("grow=5",)),
    "min_count": Case("3", "ids"),
    "keep_characters": Case("false", VOCABULARY),
    "grow": Case("5", VOCABULARY),
    "grow_from": Case("source", VOCABULARY, ("grow=5",)),
    "retrain": Case("120", "ids", ("trim=false", "grow=0", "retrain=100")),
    "add_languages": Case("[fr]", "languages", (*NO_TEXT, "add_languages=[it]")),
    "like": Case("nl", "files/adapted/model.safetensors", (*NO_TEXT, "add_languages=[it]")),
    "model": Case("inputs/other_model", "files/adapted/model.safetensors"),
    "output": Case("elsewhere", "files/elsewhere"),
    "data.source_language": Case("fr", "languages"),
    "data.target_language": Case("it", "languages"),
    **corpus_cases("data.train", "test", "texts/train", "texts"),
}

CASES = {
    "backtranslate": BACKTRANSLATE,
    "check_data": CHECK_DATA,
    "prepare_data": PREPARE_DATA,
    "adapt_vocabulary": ADAPT_VOCABULARY,
    "compare_runs": COMPARE_RUNS,
    "report_run": REPORT_RUN,
    "profile_run": PROFILE_RUN,
    "import_marian": IMPORT_MARIAN,
    "merge_adapter": MERGE,
    "push": PUSH,
    "train": TRAIN,
    "tune": TUNE,
    "validate": VALIDATE,
    "translate": TRANSLATE,
}
