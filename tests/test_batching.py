"""Batches: every pair once, budgets kept, the same on every machine; ids and padding as the models want them."""

from __future__ import annotations

import subprocess
import sys

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from hf_nmt.batching import (
    BatchingSettings,
    PairEncoder,
    SampledPairs,
    TokenBatchSampler,
    TranslationCollator,
    encode_pairs,
    length_columns,
    training_batches,
)
from hf_nmt.config import load
from hf_nmt.data.manifest import recorded_steps
from hf_nmt.errors import ConfigError, DataError

# Sampler


def budget(batch_tokens=4096, **others):
    longest = min(256, batch_tokens)
    return BatchingSettings(batch_tokens=batch_tokens, max_source_length=longest, max_target_length=longest, **others)


def like_real_text(rows, seed=0):
    """Lengths of both sides: log-normal and correlated."""
    draw = np.random.default_rng(seed)
    common = draw.lognormal(2.7, 0.5, rows)
    return [np.clip(common * draw.lognormal(0, 0.15, rows) + 1, 2, 250).astype(np.int32) for _ in range(2)]


@st.composite
def cases(draw):
    """Lengths, settings and a division; those that cannot be dealt are left to their own test."""
    rows = draw(st.integers(1, 300))
    longest = draw(st.integers(2, 40))
    seed = draw(st.integers(0, 1000))
    lengths = np.random.default_rng(seed).integers(1, longest + 1, (2, rows)).astype(np.int32)
    lengths[:, 0] = longest
    world_size, accumulation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    parts = world_size * accumulation
    assume(rows >= parts)
    least = longest if parts == 1 else 2 * longest
    most_sentences = draw(st.one_of(st.none(), st.integers(1 if parts == 1 else 2, 20)))
    made = budget(
        draw(st.integers(least, 20 * longest)),
        max_sentences=most_sentences,
        updates_per_bucket=draw(st.integers(1, 4)),
    )
    return lengths, made, {"seed": seed, "world_size": world_size, "accumulation": accumulation}


@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_every_pair_once_within_the_budget_and_no_batch_empty(case):
    (source, target), made, division = case
    sampler = TokenBatchSampler(source, target, made, **division)
    numbers = set()
    for epoch in (0, 1, 7):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        numbers.add(len(batches))
        assert sorted(row for batch in batches for row in batch) == list(range(len(source)))
        for batch in batches:
            assert len(batch) * max(source[batch].max(), target[batch].max()) <= made.batch_tokens
            assert 1 <= len(batch) <= (made.max_sentences or len(batch))
    assert numbers == {len(sampler)}
    assert len(sampler) % (division["world_size"] * division["accumulation"]) == 0


@given(case=cases())
@settings(max_examples=50, deadline=None)
def test_processes_share_an_epoch_without_overlap(case):
    """Dealt by accelerate itself, as in a distributed run, and resumed by it."""
    (source, target), made, division = case
    whole = TokenBatchSampler(source, target, made, **division)
    whole.set_epoch(3)
    ranks = [
        BatchSamplerShard(whole, num_processes=division["world_size"], process_index=rank)
        for rank in range(division["world_size"])
    ]
    dealt = [list(rank) for rank in ranks]
    assert {len(batches) for batches in dealt} == {len(rank) for rank in ranks} == {len(whole) // len(ranks)}
    assert sorted(row for batches in dealt for batch in batches for row in batch) == list(range(len(source)))
    skipped = len(dealt[0]) // 2
    assert list(SkipBatchSampler(ranks[0], skip_batches=skipped)) == dealt[0][skipped:]
    # One process with as many more accumulation steps computes the same updates.
    alone = dict(division, world_size=1, accumulation=division["world_size"] * division["accumulation"])
    single = TokenBatchSampler(source, target, made, **alone)
    single.set_epoch(3)
    assert list(single) == list(whole)


def updates(sampler, parts):
    batches = list(sampler)
    return [sorted(sum(batches[start : start + parts], [])) for start in range(0, len(batches), parts)]


@pytest.mark.parametrize("limit", [{}, {"max_sentences": 16}, {"updates_per_bucket": 8}])
def test_four_small_batches_are_one_large_batch(limit):
    source, target = like_real_text(5000)
    small = dict(limit, max_sentences=limit["max_sentences"] // 4) if "max_sentences" in limit else limit
    large = TokenBatchSampler(source, target, budget(4096, **limit), seed=1)
    parted = TokenBatchSampler(source, target, budget(1024, **small), seed=1, accumulation=4)
    assert updates(large, 1) == updates(parted, 4)


def test_order_depends_on_seed_and_epoch_only():
    source, target = like_real_text(3000)

    def batches(seed, epoch):
        sampler = TokenBatchSampler(source, target, budget(1024), seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(1, 0) == batches(1, 0) != batches(2, 0)
    first, second = batches(1, 0), batches(1, 1)
    assert first != second
    # Not the order of the batches alone: nearly all batches have other pairs.
    same = {frozenset(batch) for batch in first} & {frozenset(batch) for batch in second}
    assert len(same) < 0.1 * len(first)
    sampler = TokenBatchSampler(source, target, budget(1024), seed=1)
    assert list(sampler) == list(sampler), "a second pass of the same epoch is the same"


def test_updates_are_even_and_padding_is_low():
    source, target = like_real_text(20_000)
    sampler = TokenBatchSampler(source, target, budget(4096), seed=1)
    batches = list(sampler)
    padded = sum(len(batch) * (int(source[batch].max()) + int(target[batch].max())) for batch in batches)
    assert padded < 1.15 * (source.sum() + target.sum())
    # A greedy filling of the globally sorted order needs hardly fewer batches.
    order = np.lexsort((source, target))
    greedy, longest, filled = 1, 0, 0
    for row in order:
        longest, filled = max(longest, source[row], target[row]), filled + 1
        if longest * filled > 4096:
            greedy, longest, filled = greedy + 1, max(source[row], target[row]), 1
    assert len(batches) < 1.1 * greedy
    tokens = np.array([target[batch].sum() for batch in batches])
    assert tokens.min() > 0.25 * tokens.mean(), "there must be no tiny rest"


def test_an_update_is_divided_into_batches_of_like_length():
    source, target = like_real_text(20_000)
    sampler = TokenBatchSampler(source, target, budget(2048), seed=1, world_size=4)
    batches = list(sampler)
    ratios = []
    for start in range(0, len(batches), 4):
        padded = [len(batch) * int(np.maximum(source, target)[batch].max()) for batch in batches[start : start + 4]]
        ratios.append(max(padded) / min(padded))
    assert np.median(ratios) < 1.3


def test_equal_lengths_need_no_padding():
    lengths = np.repeat(np.arange(5, 25, dtype=np.int16), 400)
    sampler = TokenBatchSampler(lengths, lengths, budget(500), seed=0)
    assert all(len(set(lengths[batch])) == 1 for batch in sampler)


def test_epoch_in_index():
    source, target = like_real_text(100)
    plain, numbered = (
        TokenBatchSampler(source, target, budget(), seed=0, epoch_in_index=numbered) for numbered in (False, True)
    )
    for epoch in (0, 2):
        plain.set_epoch(epoch)
        numbered.set_epoch(epoch)
        assert list(numbered) == [[row + 100 * epoch for row in batch] for batch in plain]


def test_fingerprint_tells_samplers_apart():
    source, target = like_real_text(500)

    def fingerprint(source=source, made=None, seed=0, **division):
        return TokenBatchSampler(source, target, made or budget(1024), seed=seed, **division).fingerprint

    others = [
        fingerprint(source=source[::-1].copy()),
        fingerprint(made=budget(512)),
        fingerprint(seed=1),
        fingerprint(accumulation=2),
    ]
    assert fingerprint() == fingerprint() and len({fingerprint(), *others}) == 5


def test_what_cannot_be_dealt_is_refused():
    lengths = np.array([10, 200, 30])
    with pytest.raises(ConfigError, match="batch_tokens: 100 tokens cannot hold the longest pair, of 200 tokens"):
        TokenBatchSampler(lengths, lengths, budget(100), seed=0)
    with pytest.raises(DataError, match=r"3 pairs cannot fill the 4 batches of an update \(2 processes x 2 accumul"):
        TokenBatchSampler(lengths, lengths, budget(1024), seed=0, world_size=2, accumulation=2)
    with pytest.raises(ConfigError, match="batches of 4096 tokens and 1 sentences hold a single long pair, and 3 "):
        TokenBatchSampler(lengths, lengths, budget(max_sentences=1), seed=0, accumulation=2)
    assert len(TokenBatchSampler(lengths[:2], lengths[:2], budget(max_sentences=1), seed=0, accumulation=2)) == 2


def test_a_budget_below_the_limits_of_length_is_refused():
    message = r"batch_tokens=100 cannot hold a single pair of 256 tokens \(max_source_length, max_target_length\)"
    with pytest.raises(ConfigError, match=message):
        load(BatchingSettings, overrides=["batch_tokens=100"])


def test_the_log_tells_the_size_of_updates(caplog):
    caplog.set_level("INFO", logger="hf_nmt")
    source, target = like_real_text(5000)
    sampler = TokenBatchSampler(source, target, budget(), seed=0)
    assert f"{len(sampler)} updates an epoch" in caplog.text


# Memory: the peak of a process that makes a sampler and runs through two epochs, in MiB

MEMORY = """
import re, sys
import numpy as np
from hf_nmt.batching.sampler import TokenBatchSampler
from hf_nmt.batching.settings import BatchingSettings
source, target = np.load(sys.argv[1], mmap_mode="r")
sampler = TokenBatchSampler(source, target, BatchingSettings(), seed=0)
for epoch in range(2):
    sampler.set_epoch(epoch)
    assert sum(map(len, sampler)) == len(source)
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(("rows", "allowed"), [(400_000, 25), pytest.param(5_000_000, 200, marks=pytest.mark.slow)])
def test_memory_grows_little_with_the_corpus(tmp_path, rows, allowed):
    peaks = []
    for number in (100_000, rows):
        np.save(tmp_path / "lengths.npy", np.stack(like_real_text(number)))
        command = [sys.executable, "-c", MEMORY, str(tmp_path / "lengths.npy")]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout))
    assert peaks[1] - peaks[0] < allowed, f"MiB with 100,000 and {rows:,} pairs: {peaks}"


# Encoding

WORDS = "<unk> <pad> <s> </s> a b c d e f g h".split()


@pytest.fixture
def tokenizer():
    """One word, one token; closed by </s>."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


PAIRS = datasets.Dataset.from_list(
    [
        {"source": "a b c", "target": "d", "domain": "x"},
        {"source": "a b c d e f", "target": "a", "domain": "x"},
        {"source": "b", "target": "e f g h a", "domain": "y"},
        {"source": "a b c d e f", "target": "e f g h a", "domain": "y"},
        {"source": "c d", "target": "f g", "domain": "y"},
    ]
)


def encode(folder, tokenizer, pairs=PAIRS, keep_text=False, **limits):
    limits = {"max_source_length": 5, "max_target_length": 4} | limits
    return encode_pairs(
        pairs, PairEncoder(tokenizer, BatchingSettings(**limits)), cache_dir=folder, keep_text=keep_text
    )


def test_encoded_rows(tmp_path, tokenizer):
    encoded = encode(tmp_path, tokenizer, max_source_length=20, max_target_length=20)
    assert encoded.column_names == ["input_ids", "labels", "source_length", "target_length"]
    assert str(encoded.data.schema.field("input_ids").type) == "list<item: int32>" and encoded.cache_files
    for pair, row in zip(PAIRS, encoded, strict=True):
        assert row["input_ids"] == [WORDS.index(word) for word in pair["source"].split()] + [3]
        assert row["labels"] == [WORDS.index(word) for word in pair["target"].split()] + [3]
        assert (row["source_length"], row["target_length"]) == (len(row["input_ids"]), len(row["labels"]))
    source, target = length_columns(encoded)
    assert source.tolist() == [4, 7, 2, 7, 3] and target.dtype == np.int32
    assert isinstance(source, np.memmap) and isinstance(target, np.memmap)
    assert target.tolist() == encoded["target_length"][:]
    assert length_columns(encoded.select([4, 0]))[0].tolist() == [3, 4]
    assert length_columns(encoded.select(range(2)))[0].tolist() == [4, 7]


def test_dropped_pairs_are_told_when_found_in_the_cache_too_and_zero_is_not_told(tmp_path, tokenizer, caplog):
    both_too_long = PAIRS.select([0, 3])
    for _ in range(2):
        caplog.clear()
        encoded = encode(tmp_path, tokenizer, both_too_long)
        assert caplog.messages == ["encoding: 1 of 2 pairs dropped: source_too_long"]
        assert recorded_steps(encoded)[0].dropped == {"source_too_long": 1}


def test_long_pairs_are_dropped_and_counted(tmp_path, tokenizer, caplog):
    encoded = encode(tmp_path, tokenizer)
    assert encoded["source_length"][:] == [4, 3]
    (step,) = recorded_steps(encoded)
    assert (step.name, step.kept) == ("encode", 2)
    assert step.dropped == {"source_too_long": 2, "target_too_long": 1}
    assert "2 of 5 pairs dropped: source_too_long" in caplog.text


def test_long_pairs_are_cut_with_their_end_symbol_kept(tmp_path, tokenizer):
    encoded = encode(tmp_path, tokenizer, too_long="truncate")
    assert encoded["input_ids"][1] == [4, 5, 6, 7, 3] and encoded["labels"][2] == [8, 9, 10, 3]
    (step,) = recorded_steps(encoded)
    assert step.changed == {"source_truncated": 2, "target_truncated": 2} and not step.dropped


def test_long_pairs_are_refused(tmp_path, tokenizer):
    with pytest.raises(DataError, match="The source of pair 2 has 7 tokens, more than max_source_length=5.* truncate"):
        encode(tmp_path, tokenizer, too_long="error")
    with pytest.raises(DataError, match="None of 5 pairs is within max_source_length=2 and max_target_length=2"):
        encode(tmp_path, tokenizer, max_source_length=2, max_target_length=2)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_encoding_is_found_again_unless_something_changed(tmp_path, tokenizer):
    def place(*arguments, **settings):
        return encode(tmp_path, *arguments, **settings).cache_files[0]["filename"]

    first = place(tokenizer)
    copy = datasets.Dataset.from_list(PAIRS.to_list()).remove_columns("domain")
    assert place(tokenizer, copy) == place(tokenizer) == first
    places = [
        place(tokenizer, PAIRS.select([1, 0, 2, 3, 4])),
        place(tokenizer, max_source_length=6),
        place(tokenizer, too_long="truncate"),
        place(tokenizer, keep_text=True),
    ]
    tokenizer.add_tokens(["i"])
    places.append(place(tokenizer))
    assert len({first, *places}) == 6


def test_several_slices_give_the_same_rows(tmp_path, tokenizer, monkeypatch):
    whole = encode(tmp_path, tokenizer, keep_text=True)
    monkeypatch.setattr("hf_nmt.batching.encoding._PAIRS_AT_A_TIME", 2)
    parted = encode(tmp_path / "other", tokenizer, keep_text=True)
    assert parted.to_list() == whole.to_list() and whole["source"][:] == ["a b c", "c d"]


# Collator


def test_padding_and_shift():
    rows = [{"input_ids": [5, 6, 3], "labels": [7, 3]}, {"input_ids": [8, 3], "labels": [9, 4, 4, 3]}]
    batch = TranslationCollator(1, 2)(rows)
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[5, 6, 3], [8, 3, 1]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "labels": [[7, 3, -100, -100], [9, 4, 4, 3]],
        "decoder_input_ids": [[2, 7, 3, 1], [2, 9, 4, 4]],
    }
    assert all(tensor.dtype == torch.int64 and tensor.is_contiguous() for tensor in batch.values())
    wide = TranslationCollator(1, 2, pad_to_multiple_of=8)(rows)
    assert [tensor.shape for tensor in wide.values()] == [(2, 8)] * 4
    for name, tensor in batch.items():
        assert torch.equal(wide[name][:, : tensor.shape[1]], tensor)


def tiny(family):
    import transformers

    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20, "encoder_ffn_dim": 8,
             "decoder_ffn_dim": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
             "max_position_embeddings": 32}  # fmt: skip
    others = {
        "Marian": {"pad_token_id": 19, "decoder_start_token_id": 19, "decoder_vocab_size": 20, "eos_token_id": 0},
        "T5": {"d_model": 8, "d_ff": 8, "d_kv": 4, "num_layers": 1, "num_heads": 2, "vocab_size": 20,
               "pad_token_id": 0, "decoder_start_token_id": 0},
    }  # fmt: skip
    arguments = others[family] if family == "T5" else sizes | others.get(family, {})
    config = getattr(transformers, f"{family}Config")(**arguments)
    return getattr(transformers, {"Marian": "MarianMTModel"}.get(family, f"{family}ForConditionalGeneration"))(config)


@pytest.mark.parametrize("family", ["Marian", "Bart", "MBart", "T5", "M2M100"])
def test_decoder_input_is_what_the_model_makes_itself(family):
    model = tiny(family)
    draw = np.random.default_rng(0)
    rows = [{"input_ids": [4, 2], "labels": [*draw.integers(4, 19, size).tolist(), 2]} for size in (5, 1, 3)]
    batch = TranslationCollator.for_model(model)(rows)
    labels = batch["labels"]
    if family == "M2M100":
        from transformers.models.m2m_100.modeling_m2m_100 import shift_tokens_right

        expected = shift_tokens_right(labels, model.config.pad_token_id, model.config.decoder_start_token_id)
    else:
        expected = model.prepare_decoder_input_ids_from_labels(labels.clone())
    assert torch.equal(batch["decoder_input_ids"], expected)
    assert batch["input_ids"][0].tolist() == [4, 2]


# Together


class Spelling:
    """Stands for a sampler of segmentations: a word becomes one to three tokens, as the generator says."""

    def sample_source_ids(self, text, generator, usual=None):
        words = text.split()
        repeats = generator.integers(1, 4, len(words))
        return [WORDS.index(word) for word, times in zip(words, repeats, strict=True) for _ in range(times)] + [3]

    def sample_target_ids(self, text, generator):
        return self.sample_source_ids(text, generator)


def many_pairs(rows=60):
    draw = np.random.default_rng(1)
    words = [[" ".join(draw.choice(WORDS[4:], size=draw.integers(1, 6))) for _ in range(2)] for _ in range(rows)]
    return datasets.Dataset.from_list([{"source": source, "target": target} for source, target in words])


def epoch_of(dataset, sampler, epoch, **loading):
    sampler.set_epoch(epoch)
    collator = TranslationCollator(1, 2)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=collator, **loading)
    return [{name: tensor.tolist() for name, tensor in batch.items()} for batch in loader]


def test_training_batches_hold_every_token_once(tmp_path, tokenizer):
    pairs, made = many_pairs(), budget(32, updates_per_bucket=1)
    encoded = encode_pairs(pairs, PairEncoder(tokenizer, made), cache_dir=tmp_path)
    dataset, sampler = training_batches(encoded, made, seed=0, accumulation=2)
    for epoch in (0, 1):
        seen = [
            tuple(label for label in labels if label != -100)
            for batch in epoch_of(dataset, sampler, epoch)
            for labels in batch["labels"]
        ]
        assert sorted(seen) == sorted(map(tuple, encoded["labels"][:]))


def test_sampled_pairs_depend_on_seed_epoch_and_row_only(tmp_path, tokenizer):
    pairs, made = many_pairs(), budget(64, updates_per_bucket=1)
    encoded = encode_pairs(pairs, PairEncoder(tokenizer, made), cache_dir=tmp_path, keep_text=True)

    def batches(epoch, seed=0, **loading):
        dataset, sampler = training_batches(encoded, made, seed=seed, subword_sampler=Spelling())
        return epoch_of(dataset, sampler, epoch, **loading)

    assert batches(1) == batches(1, num_workers=2) != batches(2)
    rows = SampledPairs(encoded, Spelling(), made, seed=0)
    other_seed = SampledPairs(encoded, Spelling(), made, seed=1)
    assert len(rows) == 60
    assert rows[5 + 60] == rows.__getitems__([3, 5 + 60])[1] != rows[5 + 120]
    assert any(rows[index] != other_seed[index] for index in range(60))
    without_repeats = [list(dict.fromkeys(rows[7 + 60 * epoch]["input_ids"])) for epoch in range(3)]
    assert all(ids == list(dict.fromkeys(encoded[7]["input_ids"])) for ids in without_repeats)


def test_a_sample_beyond_the_limit_gives_way(tmp_path, tokenizer):
    pairs = many_pairs()
    made = BatchingSettings(max_source_length=6, max_target_length=6)
    encoded = encode_pairs(pairs, PairEncoder(tokenizer, made), cache_dir=tmp_path, keep_text=True)
    rows = SampledPairs(encoded, Spelling(), made, seed=0)
    sampled = [rows[index] for index in range(len(rows))]
    assert max(len(row["labels"]) for row in sampled) <= 6
    assert [row["labels"] for row in sampled] != encoded["labels"][:]
