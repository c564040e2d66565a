"""Texts, files and models that the recipes are walked with, small and always the same."""

from __future__ import annotations

import gzip
import json
import random
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

import marian_files
import pyarrow as pa
import torch
from datasets import Dataset, DatasetDict
from sentencepiece import SentencePieceProcessor
from tiny_models import save_causal, save_encoder, save_translator

from hf_nmt.data.readers import Corpus, Pair
from hf_nmt.data.records import SCHEMA, id_of, tables_of
from hf_nmt.data.versions import write_version
from hf_nmt.generation import adapters
from hf_nmt.generation.adapters import adapter_weights, load_adapter_weights
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.training.adapters import AdapterSettings, add_adapter
from hf_nmt.translators import load_model

SUBJECTS = {"der Hund": "the dog", "die Katze": "the cat", "ein Kind": "a child", "Anna Weiß": "Anna Weiß"}
VERBS = {"sieht": "sees", "malt": "paints", "findet": "finds", "trägt": "carries"}
OBJECTS = {
    "einen Ball": "a ball",
    "zwei Äpfel": "two apples",
    "das alte Haus": "the old house",
    "１２ Steine": "１２ stones",
}
PLACES = {
    "": "",
    "im Garten": "in the garden",
    "am 3. Mai": "on 3 May",
    "auf dem Weg nach Köln ☂": "on the way to Köln ☂",
}

SETTINGS = {
    "train": """
        data: {source_language: de, target_language: en, train: {source: inputs/train.de, target: inputs/train.en}}
        model:
          d_model: 16
          encoder_layers: 1
          decoder_layers: 1
          encoder_attention_heads: 2
          decoder_attention_heads: 2
          encoder_ffn_dim: 32
          decoder_ffn_dim: 32
          max_position_embeddings: 64
          tie_word_embeddings: false
        batching: {batch_tokens: 256, max_source_length: 48, max_target_length: 48}
        training:
          use_cpu: true
          max_steps: 3
          logging_steps: 1
          save_steps: 3
          eval_steps: 3
          disable_tqdm: true
        schedule: {warmup_steps: 1}
        decoding: {num_beams: 2, max_length_ratio: 1, max_length_extra: 4}
    """,
    "validate": """
        translations: inputs/good.en
        data:
          source_language: de
          target_language: en
          test: {source: inputs/test.de, target: inputs/test.en}
        metrics: {num_bootstrap_samples: 50}
    """,
    "merge_adapter": """
        adapter: inputs/adapter
        output: merged
    """,
    "compare_runs": """
        runs: [inputs/run, inputs/edited_run]
        scores: [inputs/evaluations]
    """,
    "report_run": """
        run: reported
        scores: [inputs/evaluations]
    """,
    "profile_run": """
        train_config: inputs/train.yaml
        warmup_updates: 1
        updates: 1
        batch_sizes: [1]
        num_sentences: 2
    """,
    "push": """
        folder: inputs/run
        repo: me/new
    """,
    "adapt_vocabulary": """
        model: inputs/model
        output: adapted
        trim: true
        data: {train: {source: inputs/test.de, target: inputs/test.en, max_rows: 3}}
    """,
    "tune": """
        study: study
        settings: {training: {max_steps: 300}}
        search: {training: {learning_rate: {low: 1e-4, high: 1.0, log: true}}}
        budget: {trials: 9}
        pruning: {startup_trials: 2}
        startup_trials: 7
    """,
    "translate": """
        model: inputs/model
        decoding: {num_beams: 3, max_length_ratio: 0.5, max_length_extra: 6}
    """,
    "backtranslate": """
        model: inputs/model
        input: inputs/test.de
        output: records.jsonl
        source_language: en
        target_language: de
        decoding: {num_beams: 3, max_length_ratio: 0.5, max_length_extra: 6}
    """,
    "prepare_data": """
        source_language: de
        target_language: en
        inputs: {de-en: {path: inputs/raw.jsonl}}
        steps: [{empty: {}}]
        num_workers: 1
    """,
    "check_data": """
        version: inputs/checked
        output_dir: checked
        num_workers: 1
        records: {max_invalid: 1}
        language: {max_wrong: 1}
        alignment: {max_outliers: 1, max_misaligned: 1}
        duplicates: {max_exact: 1, max_near: 1, max_across: 1, max_near_across: 1}
        tokens: {max_long: 1}
    """,
    "import_marian": """
        model: inputs/marian/model.npz
        output: imported
    """,
}

# Pairs as they lie about, each of a kind that some step is about.
RAW = [
    ("Der Hund sieht einen Ball.", "The dog sees a ball."),
    ("Der Hund sieht einen Ball.", ""),
    ("OK", "OK"),
    ("Die Katze malt das alte Haus im Garten.", "The cat paints the old house in the garden."),
    ("Ein Kind", "A child"),
    ("ein Kind", "a child."),
    ("Ein Kind", "One child"),
    ("Das Kind sagt \ud55c\uad6d\uc5b4", "The child says \ud55c\uad6d\uc5b4"),
    ("The dog sees a red ball in the old garden.", "Der Hund sieht einen roten Ball im alten Garten."),
    ("Ein \u201eKind\u201c &amp; eine Katze\uff01", "A child and a cat!"),
    ("Ein Kind", "A child that runs and sees the old dog in the garden of the house"),
]

# Articles of four sentences in two domains, and records without an article. Two articles have a sentence in common,
# two others a source with another target, and two a sentence that is almost the same.
ARTICLES = [
    {
        "source": f"Satz {at} steht im Text {number} {'und wieder ' * (number % 4)}da.",
        "target": f"Line {at} of {number}.",
        "article": f"a{number:02d}",
        "position": at,
        "domain": ("law", "news")[number % 2],
    }
    for number in range(12)
    for at in range(4)
]
ARTICLES[4] |= {side: ARTICLES[0][side] for side in ("source", "target")}
ARTICLES[8]["source"] = ARTICLES[5]["source"]
ARTICLES[9] |= {side: f"{ARTICLES[12][side]} Ja." for side in ("source", "target")}
ARTICLES += [
    {"source": f"{('Haus', 'haus')[number % 2]} {number // 2}", "target": f"Line {number}", "domain": "law"}
    for number in range(20)
]
# A set whose pairs are in RAW, as they stand and nearly.
RAW_TEST = [
    ("Der Hund sieht einen Ball.", "The dog sees a ball."),
    ("Die Katze malt das alte Haus im Garten.", "The cat paints the old house in that garden."),
    ("ein Kind", "a child"),
]

SETTINGS["wider_train"] = SETTINGS["train"].replace("d_model: 16", "d_model: 32")
SETTINGS["train_saved"] = re.sub(r"(?m)^ +model:\n( {10}.*\n)+", "", SETTINGS["train"])


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """Sentence pairs of 4 to 20 words: capitals, umlauts, full-width digits, a rare symbol, some of two sentences."""
    draw = random.Random(seed)

    def clause() -> tuple[str, str]:
        words = [draw.choice(list(part.items())) for part in (SUBJECTS, VERBS, OBJECTS, PLACES)]
        return tuple(" ".join(word for word in side if word) for side in zip(*words, strict=True))

    rows = []
    for number in range(count):
        (source, target), (source_2, target_2) = clause(), clause()
        joined = ("{}.", "{}, und {}.", "{}. Oh, {}!")[number % 3]
        sides = joined.format(source, source_2), joined.replace(" und ", " and ").format(target, target_2)
        rows.append(tuple(side[0].upper() + side[1:] for side in sides))
    return rows


def write(folder: Path) -> None:
    """Write everything into a folder that is called `inputs` by all settings."""
    folder.mkdir()
    for recipe, text in SETTINGS.items():
        (folder / f"{recipe}.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    for name, count in (("train", 48), ("val", 12), ("test", 12)):
        for prefix in ("", "other_"):
            rows = pairs(count, seed=sum(f"{prefix}{name}".encode()))
            _write_sides(folder / f"{prefix}{name}", rows)
            _write_tables(folder, f"{prefix}{name}", rows)
        _write_sides(folder / f"{name}_holes", [("", ""), *rows])
    tests = pairs(12, seed=sum(b"test"))
    _write_lines(folder / "good.en", [text.replace("carries", "Lifts") for _, text in tests])
    _write_lines(folder / "poor.en", [text.replace("the ", "The  ").replace("!", " ?") for _, text in tests])
    aligned = pairs(400, seed=23)
    misaligned = [(source, aligned[(n + n % 20 // 19) % 400][1]) for n, (source, _) in enumerate(aligned)]
    save_translator(folder / "backward", seed=5, languages=("en", "de"))
    save_translator(folder / "other_backward", seed=6, languages=("en", "de"))
    save_translator(folder / "other_forward", seed=7)
    for name, seed in (("causal", 1), ("other_causal", 2)):
        save_causal(folder / name, seed=seed)
        save_encoder(folder / name.replace("causal", "encoder"), seed=seed)
    _write_lines(folder / "talk.en", (row[1] for row in aligned[::2]))
    _write_lines(folder / "calm.en", (row[1] for row in aligned[:20]))
    captions = [f"{source}\t{target.rstrip('.') if n % 3 else target}" for n, (source, target) in enumerate(aligned)]
    _write_lines(folder / "captions.tsv", captions)
    _write_lines(folder / "shifted.tsv", ("\t".join(row) for row in misaligned))
    _write_lines(folder / "raw.jsonl", (json.dumps(dict(zip(("source", "target"), row, strict=True))) for row in RAW))
    _write_lines(folder / "articles.jsonl", map(json.dumps, ARTICLES))
    _write_lines(folder / "words.tsv", ["dog\thound\tpup", "child\tkid", "garden\tpark\tyard", "old\taged"])
    _write_lines(folder / "other_words.tsv", ["dog\tcur", "child\tinfant"])
    for prefix in ("", "other_"):
        _write_version(folder / f"{prefix}version", f"{prefix}train")
    for name, kept in (("checked", RAW), ("other_checked", RAW[:-2]), ("shifted", misaligned)):
        version = write_version(
            folder / "checked_versions",
            {"train": [_records(kept)], "test": [_records(RAW_TEST)]},
            [],
            steps=[],
            files=[],
            inputs={},
            languages=["de", "en"],
        )
        (folder / name).symlink_to(version.relative_to(folder))
    mixed = [
        {
            "source": source,
            "target": target,
            "domain": "news" if number % 3 else "talk",
            "origin": "ab"[number % 5 // 4],
        }
        for number, (source, target) in enumerate(pairs(48, seed=3))
    ]
    _write_lines(folder / "mixed.jsonl", map(json.dumps, mixed))
    _write_hub_folder(folder / "hub")
    DatasetDict(
        {split: _dataset(pairs(16, seed)) for seed, split in enumerate(("train", "validation", "test"))}
    ).save_to_disk(folder / "splits")


def _write_version(path: Path, name: str) -> None:
    """A version of a corpus with the articles of ARTICLES, where the settings can name it."""
    constants = {"source_language": "de", "target_language": "en"}
    rows = [row | {"source": f"{row['source']} {name}"} for row in ARTICLES]
    tables = {}
    for split, part in (("train", rows[:40]), ("validation", rows[40:])):
        pairs = (Pair(n, row["source"], row["target"], None, row | {"source": None}) for n, row in enumerate(part))
        tables[split] = list(tables_of(Corpus(split, "row", pairs), constants, rows=1000))
    found = write_version(
        path.with_name(f"{path.name}s"), tables, [], steps=[], files=[], inputs={}, languages=["de", "en"]
    )
    found.rename(path)


def _records(rows: list[tuple[str, str]]) -> pa.Table:
    languages = {"source_language": "de", "target_language": "en"}
    records = [{"source": source, "target": target, **languages} for source, target in rows]
    return pa.Table.from_pylist([{"id": id_of(record), **record} for record in records], schema=SCHEMA)


def _write_sides(path: Path, rows: list[tuple[str, str]]) -> None:
    _write_lines(path.with_suffix(".de"), [source for source, _ in rows])
    _write_lines(path.with_suffix(".en"), [target for _, target in rows])


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _write_tables(folder: Path, name: str, rows: list[tuple[str, str]]) -> None:
    """The pairs with domains, with columns of other names, and a file that can be read with tabs and with commas."""
    plain, columns = [], []
    for number, (source, target) in enumerate(rows):
        plain.append({"source": source, "target": target, "domain": ("news", "talk")[number % 2]})
        columns.append({"calm": source, "quiet": target, "loud": source.upper(), "shout": target.upper()})
    _write_lines(folder / f"{name}.jsonl", map(json.dumps, plain))
    _write_lines(folder / f"{name}_columns.jsonl", map(json.dumps, columns))
    lines = [f"a{number},b{number}\tc{number},d{number}" for number in range(len(rows))]
    _write_lines(folder / f"{name}_both.tsv", ["left,l\tright,r", *lines])


def _write_hub_folder(folder: Path) -> None:
    """A folder as it would lie on the Hub, with two configurations."""
    folder.mkdir()
    names = ("one", "two")
    for seed, name in enumerate(names):
        rows = pairs(16, seed)
        text = "".join(json.dumps({"source": source, "target": target}) + "\n" for source, target in rows)
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write(text)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}.jsonl.gz\n" for name in names)
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n", encoding="utf-8")


def _dataset(rows: list[tuple[str, str]]) -> Dataset:
    return Dataset.from_dict({"source": [source for source, _ in rows], "target": [target for _, target in rows]})


def write_model(folder: Path, *, seed: int, several_languages: bool = False) -> None:
    """A model of random weights and its tokenizer."""
    sources, targets = zip(*pairs(48, seed=0), strict=True)
    tokenizer = train_tokenizer(
        sources,
        targets,
        TokenizerSettings(vocab_size=200, byte_fallback=False, character_coverage=1, language_tags=several_languages),
        source_language=["de", "ko"] if several_languages else "de",
        target_language=["en", "nl"] if several_languages else "en",
    )
    torch.manual_seed(seed)
    model = NmtForConditionalGeneration(
        NmtConfig(
            vocab_size=tokenizer.target_vocab_size,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            source_language=None if several_languages else "de",
            target_language=None if several_languages else "en",
        )
    )
    make_varied(model)
    model.generation_config.num_beams = 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_adapter(folder: Path, model: Path, *, seed: int) -> None:
    """A random adapter of a model."""
    adapted, tokenizer = load_model(model)
    torch.manual_seed(seed)
    add_adapter(adapted, AdapterSettings(rank=2))
    load_adapter_weights(adapted, {name: torch.randn_like(old) for name, old in adapter_weights(adapted).items()})
    adapters.write_adapter(adapted, folder)
    tokenizer.save_pretrained(folder)


@torch.no_grad()
def make_varied(model: NmtForConditionalGeneration) -> None:
    """Random weights so large that no two translations are alike, and many of them end before the limit."""
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.normal_(std=0.5)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        embeddings.weight[model.config.pad_token_id] = 0
    model.get_output_embeddings().weight[model.config.eos_token_id] *= 3


def write_marian(folder: Path) -> None:
    """A Marian model and another of its shape; a second vocabulary of its size, and one that lists pieces."""
    folder.mkdir()
    for seed, name in ((1, "other"), (0, "model")):
        marian_files.write_model(folder, seed=seed, name=name)
    marian_files.write_spm(folder / "twin.spm", sentences=[text[::-1] for text in marian_files.SENTENCES])
    pieces = SentencePieceProcessor(model_file=str(folder / "vocab.spm"))
    lines = [f"{json.dumps(pieces.id_to_piece(number))}: {number}\n" for number in range(pieces.vocab_size())]
    (folder / "vocab.yml").write_text("".join(lines), encoding="utf-8")
    (folder / "decoder.yml").write_text("beam-size: 7\n")
