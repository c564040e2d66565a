"""The tokenizer as its users call it: ids, languages, decoding, saving, and loading without the package."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import DataCollatorForSeq2Seq

from hf_nmt.models.tokenization_nmt import NmtTokenizer
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer

NUMBERS = ["zwei", "drei", "vier", "fünf", "sechs"]
ANIMALS = ["Hunde", "Katzen", "Pferde", "Vögel", "Kühe"]
# The reserved pieces stand in the training text on purpose: no merge and no piece may be learnt from them.
SOURCES = [f"{n} {a} laufen</s> am {i}. Mai <2en> <0x41>" for i, n in enumerate(NUMBERS) for a in ANIMALS] * 3
TARGETS = [f"the {a} number {i}, says the <pad></s> man" for i, n in enumerate(NUMBERS) for a in ANIMALS] * 3

KINDS = {
    "bpe_joint": {},
    "unigram_joint_tags": {"algorithm": "unigram", "language_tags": True},
    "bpe_separate_tags": {"joint": False, "language_tags": True},
    "unigram_separate": {"algorithm": "unigram", "joint": False},
}
HOSTILE = [
    "</s>",
    "a <pad> b</s>",
    "<2en>Hunde",
    "<s><unk></s>",
    "<0x41>",
    "\N{FULLWIDTH LESS-THAN SIGN}/s>",
    "x</s>y<2en>z<0xE2><0x96><0x81>",
]
UNSEEN = ["\N{DOG FACE} \N{HANGUL SYLLABLE HAN}\N{HANGUL SYLLABLE GUG}", "\u00e5\u0007\u0000~", "\u65e5\u672c 2,5%"]


def train(target_language="en", **settings) -> NmtTokenizer:
    settings = TokenizerSettings(**{"vocab_size": 360, **settings})
    return train_tokenizer(SOURCES, TARGETS, settings, source_language="de", target_language=target_language)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, NmtTokenizer]:
    return {name: train(**settings) for name, settings in KINDS.items()}


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizers) -> NmtTokenizer:
    return tokenizers[request.param]


@pytest.fixture(scope="module")
def folders(tokenizers, tmp_path_factory) -> dict[str, Path]:
    places = {name: tmp_path_factory.mktemp(name) for name in tokenizers}
    for name, place in places.items():
        tokenizers[name].save_pretrained(place)
    return places


# Encoding


def test_ids_of_special_tokens(tokenizer):
    assert [tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id] == [0, 1, 2]
    assert tokenizer.eos_token_id == 3
    for backend in (tokenizer.source_backend, tokenizer.target_backend):
        assert [backend.id_to_token(number) for number in range(4)] == ["<unk>", "<pad>", "<s>", "</s>"]


def test_both_sides_end_with_eos_and_a_source_opens_with_its_tag(tokenizer):
    source = tokenizer("zwei Hunde")["input_ids"]
    labels = tokenizer(text_target="two dogs")["input_ids"]
    assert source[-1] == labels[-1] == 3
    assert 3 not in source[:-1] and 3 not in labels[:-1]
    tag = tokenizer.convert_tokens_to_ids("<2en>")
    assert (source[0] == tag != 0) == tokenizer.language_tags
    assert tag not in labels or not tokenizer.language_tags
    both = tokenizer(["zwei Hunde"], text_target=["two dogs"])
    assert both["input_ids"] == [source] and both["labels"] == [labels]
    assert tokenizer.encode("zwei Hunde") == source  # the target's mode does not stay


@pytest.mark.parametrize("text", HOSTILE)
def test_text_never_becomes_a_special_token(tokenizer, text):
    expected = tokenizer.source_backend.normalizer.normalize_str(text)
    source = tokenizer(text)["input_ids"][int(tokenizer.language_tags) :]
    target = tokenizer(text_target=text)["input_ids"]
    for backend, ids in ((tokenizer.source_backend, source), (tokenizer.target_backend, target)):
        assert ids[-1] == 3 and 3 not in ids[:-1]
        assert not {backend.id_to_token(i) for i in ids[:-1]} & set(tokenizer.all_special_tokens)
        assert backend.decode(ids, skip_special_tokens=True) == expected


@pytest.mark.parametrize("text", UNSEEN)
def test_unseen_characters_come_back(tokenizer, text):
    ids = tokenizer(text_target=text)["input_ids"]
    assert 0 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_pieces_do_not_mix_words_digits_punctuation_and_scripts(tokenizer):
    text = "Kim\uc740 1984, T-Shirt!"
    pieces = tokenizer.source_backend.pre_tokenizer.pre_tokenize_str(text)
    expected = "▁Kim \uc740 ▁ 1 9 8 4 , ▁T - Shirt !".split()
    assert [piece for piece, _ in pieces] == expected


def test_white_space_is_normalised_and_the_space_symbol_is_no_space(tokenizer):
    ids = tokenizer(text_target=" a\t\u3000b\u2028c\u2581d ")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a b c_d"


def test_empty_texts_and_batches(tokenizer):
    tags = int(tokenizer.language_tags)
    assert tokenizer("")["input_ids"][tags:] == [3]
    assert tokenizer(text_target=["", " "])["input_ids"] == [[3], [3]]
    assert dict(tokenizer([])) == {"input_ids": [], "attention_mask": []}


def test_padding_and_truncation_keep_the_end_of_sentence(tokenizer):
    texts = ["zwei Hunde laufen am 2. Mai", "drei"]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=5, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 5) and batch["input_ids"][0, -1] == 3
    assert (batch["input_ids"] == 1).equal(batch["attention_mask"] == 0)


def test_collator_of_transformers(tokenizer):
    rows = [dict(tokenizer(source, text_target=target)) for source, target in (("zwei Hunde", "a"), ("d", "the man"))]
    batch = DataCollatorForSeq2Seq(tokenizer)(rows)
    for row, ids, labels in zip(rows, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        assert [i for i in ids if i != 1] == row["input_ids"]
        assert [i for i in labels if i != -100] == row["labels"]


def test_a_batch_is_one_call_of_the_rust_tokenizer(monkeypatch):
    tokenizer = train()

    class Counted:
        calls = 0

        def __getattr__(self, name):
            return getattr(rust, name)

        def encode_batch(self, *args, **kwargs):
            Counted.calls += 1
            return rust.encode_batch(*args, **kwargs)

    rust = tokenizer.source_backend
    monkeypatch.setattr(tokenizer, "_source_backend", Counted())
    assert len(tokenizer(SOURCES)["input_ids"]) == len(SOURCES)
    assert Counted.calls == 1


def test_text_that_is_not_unicode_is_refused(tokenizer):
    with pytest.raises(ValueError, match="Text 1 is not Unicode text: .* holds a lone surrogate"):
        tokenizer(["a", "b\ud83d"])
    with pytest.raises(TypeError):
        tokenizer(["a", None])


# Languages


def test_unknown_languages_are_refused(tokenizer):
    with pytest.raises(ValueError, match=r"tgt_lang is 'fr', which this tokenizer was not trained for. Known: en\."):
        tokenizer("zwei", tgt_lang="fr")
    with pytest.raises(ValueError, match=r"src_lang is 'ko', .* Known: de\."):
        tokenizer.src_lang = "ko"
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("de", "en")
    assert tokenizer("zwei", src_lang="de", tgt_lang="en")["input_ids"] == tokenizer("zwei")["input_ids"]


@pytest.mark.parametrize("joint", [True, False])
def test_several_target_languages(joint, tmp_path):
    tokenizer = train(("en", "fr"), language_tags=True, joint=joint)
    with pytest.raises(ValueError, match="serves several target languages: set tgt_lang to en, fr"):
        tokenizer("zwei Hunde")
    target = tokenizer(text_target="the man")["input_ids"]  # needs no tag
    french = tokenizer("zwei Hunde", tgt_lang="fr")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(french)[0] == "<2fr>" and tokenizer.tgt_lang is None
    tokenizer.tgt_lang = "en"
    english = tokenizer("zwei Hunde")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(english)[0] == "<2en>" and english[1:] == french[1:]
    assert tokenizer(["zwei Hunde"], text_target=["the man"], tgt_lang="fr")["labels"] == [target]
    assert tokenizer.encode("zwei Hunde") == english  # the call's language does not stay
    with pytest.raises(TypeError):
        tokenizer(text_target=["a", None], tgt_lang="fr")
    assert tokenizer.encode("zwei Hunde") == english  # nor after an error
    tokenizer.save_pretrained(tmp_path)
    again = NmtTokenizer.from_pretrained(tmp_path)
    assert again.tgt_lang == "en" and again.encode("zwei Hunde") == english
    assert again("zwei Hunde", tgt_lang="fr")["input_ids"] == french


# Decoding


def test_decoding_reads_target_ids_in_every_form(tokenizer):
    texts = ["the Hunde number 2, says", "man"]
    ids = tokenizer(text_target=texts)["input_ids"]
    width = max(map(len, ids))
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in ids])
    padded = torch.tensor([row + [1] * (width - len(row)) for row in ids])
    for batch in (ids, labels, padded, labels.numpy(), list(labels), [list(row) for row in labels.numpy()]):
        assert tokenizer.batch_decode(batch, skip_special_tokens=True) == texts
        assert tokenizer.decode(batch, skip_special_tokens=True) == texts
    for one in (ids[0], torch.tensor(ids[0]), np.array(ids[0]), labels[0], {"input_ids": ids[0]}):
        assert tokenizer.decode(one, skip_special_tokens=True) == texts[0]
    assert tokenizer.decode(tokenizer(text_target=texts), skip_special_tokens=True) == texts
    assert tokenizer.decode(ids[1]) == "man</s>"
    assert tokenizer.decode(ids[1][0]) == tokenizer.decode(ids[1][:1])
    assert tokenizer.decode([]) == "" and tokenizer.batch_decode([]) == []
    assert tokenizer.decode([[], ids[1]], skip_special_tokens=True) == ["", "man"]
    spaced = tokenizer(text_target="says , man")["input_ids"]
    assert tokenizer.decode(spaced, True, clean_up_tokenization_spaces=True) == "says, man"


def test_target_pieces(tokenizer):
    ids = tokenizer(text_target="says the man")["input_ids"]
    pieces = tokenizer.convert_target_ids_to_tokens(torch.tensor([*ids, -100]))
    assert "".join(pieces[:-1]) == "▁says▁the▁man" and pieces[-1] == "</s>"
    assert tokenizer.convert_target_ids_to_tokens(ids, skip_special_tokens=True) == pieces[:-1]


def test_sizes_of_the_vocabularies(tokenizer):
    assert len(tokenizer) == tokenizer.source_vocab_size == tokenizer.source_backend.get_vocab_size()
    assert tokenizer.target_vocab_size == tokenizer.target_backend.get_vocab_size()
    assert tokenizer.separate_vocabularies == (tokenizer.source_backend is not tokenizer.target_backend)
    if tokenizer.separate_vocabularies:
        source, target = (set(b.get_vocab()) for b in (tokenizer.source_backend, tokenizer.target_backend))
        assert "▁Mai" in source - target and "▁says" in target - source


# Saving and loading


def ids_of(tokenizer) -> list[list[int]]:
    texts = [*SOURCES[:10], *HOSTILE, *UNSEEN]
    return [*tokenizer(texts)["input_ids"], *tokenizer(text_target=texts)["input_ids"]]


def test_copies_give_the_same_ids(tokenizer):
    for again in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert ids_of(again) == ids_of(tokenizer)
        assert again.separate_vocabularies == (again.source_backend is not again.target_backend)


def test_saved_again_the_files_are_the_same(folders, tmp_path):
    for name, folder in folders.items():
        again = NmtTokenizer.from_pretrained(folder)
        again(["zwei Hunde"], padding="max_length", truncation=True, max_length=3)  # is not to end up in the file
        again.save_pretrained(tmp_path / name)
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(path.name for path in (tmp_path / name).iterdir())
        for file in names:
            assert (folder / file).read_bytes() == (tmp_path / name / file).read_bytes(), file
        assert Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")).truncation is None


def test_a_missing_target_vocabulary_is_an_error_and_a_stray_one_is_not_read(folders, tmp_path, tokenizers):
    tokenizers["bpe_separate_tags"].save_pretrained(tmp_path)
    tokenizers["bpe_joint"].save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer_target.json").is_file()
    assert not NmtTokenizer.from_pretrained(tmp_path).separate_vocabularies
    tokenizers["bpe_separate_tags"].save_pretrained(tmp_path)
    (tmp_path / "tokenizer_target.json").unlink()
    with pytest.raises(ValueError, match=r"target side is missing: tokenizer_target\.json belongs beside"):
        NmtTokenizer.from_pretrained(tmp_path)


LOAD = """
import json, sys
if sys.argv[1] == "remote":
    sys.modules["hf_nmt"] = None
    options = {"trust_remote_code": True}
else:
    import hf_nmt
    options = {}
from transformers import AutoTokenizer
texts, folders = json.load(sys.stdin)
results = []
for folder in folders:
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    labels = tokenizer(text_target=texts)["input_ids"]
    results.append({
        "module": type(tokenizer).__module__,
        "ids": [*tokenizer(texts)["input_ids"], *labels],
        "decoded": tokenizer.batch_decode(labels, skip_special_tokens=True),
    })
print(json.dumps(results))
"""


@pytest.mark.parametrize("way", ["installed", "remote"])
def test_auto_tokenizer_in_a_fresh_process(way, folders, tokenizers, tmp_path):
    places = {}
    for name, folder in folders.items():  # alone, and beside a model
        places[name, False] = folder
        places[name, True] = shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "config.json").write_text('{"model_type": "hf_nmt", "transformers_version": "5.23.0"}')
    texts = [*SOURCES[:10], *HOSTILE, *UNSEEN]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    if way == "installed":
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    answer = subprocess.run(
        [sys.executable, "-c", LOAD, way],
        input=json.dumps([texts, [str(place) for place in places.values()]]),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(answer.stdout.splitlines()[-1])
    for (name, _), result in zip(places, results, strict=True):
        assert result["module"].startswith("hf_nmt." if way == "installed" else "transformers_modules.")
        assert result["ids"] == ids_of(tokenizers[name])
        labels = tokenizers[name](text_target=texts)["input_ids"]
        assert result["decoded"] == tokenizers[name].batch_decode(labels, skip_special_tokens=True)
