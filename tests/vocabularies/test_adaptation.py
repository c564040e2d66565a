"""Adapted models of every family against the models they come from, loaded as anyone loads them."""

from __future__ import annotations

import base64
import json

import families
import pytest
import torch
from adapted_models import (
    NEW,
    SAME,
    SOURCES,
    TARGETS,
    adapt,
    assert_kept_tokens_are_equal,
    opened,
    table,
    token_of,
    written,
)
from sentencepiece import sentencepiece_model_pb2

from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.translators import load_model
from hf_nmt.vocabularies import adaptation
from hf_nmt.vocabularies.adaptation import adapt_vocabulary
from hf_nmt.vocabularies.settings import VocabularySettings

# The others have the tokenizers of one of these.
FAMILIES = ["nmt", "nmt_separate", "nmt_unigram", "nmt_tagged", "nllb", "m2m_100", "mt5", "marian_multilingual"]
FAMILIES += [pytest.param(name, marks=pytest.mark.slow) for name in ("nmt_tags", "mbart50", "bart")]


@pytest.mark.parametrize("name", FAMILIES)
def test_trimmed(name, folder_of, adapted):
    folder, report = adapted(name, trim=True)
    before, after = opened(folder_of(name)), opened(folder)
    assert_kept_tokens_are_equal(before, after)
    for side, texts in SAME.items():
        old, new = (written(tokenizer, side, texts) for _, tokenizer in (before, after))
        assert old == new
        assert report["same_pieces"][side] == {"same": len(texts), "other": 0}
        # Nothing is left that the text could do without: an independent count of what it uses.
        used = {piece for row in old for piece in row}
        vocabularies = {side: count for count in report["vocabularies"] for side in count["sides"]}
        assert vocabularies[side]["removed"] > 0 and len(used) <= vocabularies[side]["after"]
    model = after[0]
    assert model.get_output_embeddings().weight.shape[0] == model.config.vocab_size == len(table(after[1], "target"))
    assert model.num_parameters() == report["parameters"]["after"] < report["parameters"]["before"]


@pytest.mark.parametrize("name", FAMILIES)
def test_trimmed_harder_the_rare_is_written_with_smaller_pieces(name, folder_of, adapted):
    folder, report = adapted(name, trim=True, min_count=4, keep_characters=False)
    assert_kept_tokens_are_equal(opened(folder_of(name)), opened(folder))
    text = report["text"]["target"]
    assert text["after"]["tokens"] >= text["before"]["tokens"] and report["same_pieces"]["target"]["other"] > 0


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("settings", [{"grow": 30}, {"trim": True, "grow": 30}, {"retrain": 420}], ids=str)
def test_with_new_pieces(name, settings, folder_of, adapted):
    folder, report = adapted(name, NEW, **settings)
    before, after = opened(folder_of(name)), opened(folder)
    assert_kept_tokens_are_equal(before, after)
    for side, texts in NEW.items():
        old, new = (sum(map(len, written(tokenizer, side, texts))) for _, tokenizer in (before, after))
        assert new < old
        assert (report["text"][side]["before"]["tokens"], report["text"][side]["after"]["tokens"]) == (old, new)
        assert report["text"][side]["after"]["unknown_rate"] == 0
    if "grow" in settings:
        assert all(0 < one["new"] <= 30 for one in report["vocabularies"])
    else:
        assert all(one["after"] <= 420 for one in report["vocabularies"])
    if settings == {"grow": 30} and name != "m2m_100":  # whose codes have to come last
        olds, news = table(before[1], "source"), table(after[1], "source")
        assert olds.items() <= news.items()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_new_piece_starts_as_the_mean_of_what_wrote_it(name, folder_of, adapted):
    (old, old_tokenizer), (new, new_tokenizer) = opened(folder_of(name)), opened(adapted(name, NEW, grow=30)[0])
    olds, news = table(old_tokenizer, "target"), table(new_tokenizer, "target")
    checked = 0
    for token in news.keys() - olds.keys():
        word = token.removeprefix("\u2581").removeprefix("\u0120")
        if word == token or not word.isascii():
            continue  # in the middle of a word, or a character that was unknown
        # Marian has a subword model for each side: the one that learnt the piece wrote it before.
        learnt = next((side for side in NEW if written(new_tokenizer, side, [f"a {word}"])[0][-1] == token), "target")
        (parts,) = written(old_tokenizer, learnt, [f"a {word}"])
        parts = parts[len(written(old_tokenizer, learnt, ["a"])[0]) :]
        if "".join(parts) != token or not {*parts} <= olds.keys():
            continue
        rows = old.get_output_embeddings().weight[[olds[part] for part in parts]]
        torch.testing.assert_close(new.get_output_embeddings().weight[news[token]], rows.mean(0))
        if (biases := getattr(old, "final_logits_bias", None)) is not None:
            expected = biases[0][[olds[part] for part in parts]].mean()
            torch.testing.assert_close(new.final_logits_bias[0, news[token]], expected)
        checked += 1
    assert checked > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_of_the_settings_are_those_of_the_same_tokens(name, folder_of, adapted):
    before, after = opened(folder_of(name)), opened(adapted(name, NEW, retrain=420)[0])
    checked = 0
    for of in ("config", "generation_config"):
        old, new = (getattr(model, of).to_dict() for model, _ in (before, after))
        for key in old:
            if key.endswith("_token_id") and old[key] is not None:
                tokens = [
                    token_of(tokenizer, "target", ids[key])
                    for ids, (_, tokenizer) in zip((old, new), (before, after), strict=True)
                ]
                assert tokens[0] == tokens[1], key
                checked += 1
    assert checked > 3
    bad = [model.generation_config.bad_words_ids for model, _ in (before, after)]
    if bad[0]:
        assert bad == [[[model.config.pad_token_id]] for model, _ in (before, after)]


@pytest.mark.parametrize("name", FAMILIES)
def test_matrices_that_were_one_stay_one_and_can_be_trained(name, folder_of, adapted):
    (old, _), (new, tokenizer) = opened(folder_of(name)), opened(adapted(name, NEW, trim=True, grow=30)[0])

    def shared(model):
        matrices = [model.get_encoder().embed_tokens, model.get_decoder().embed_tokens, model.get_output_embeddings()]
        pointers = [matrix.weight.data_ptr() for matrix in matrices]
        return [first == second for first in pointers for second in pointers]

    assert shared(new) == shared(old)
    ids = [
        torch.tensor([[table(tokenizer, side)[token] for token in written(tokenizer, side, [NEW[side][0]])[0]]])
        for side in NEW
    ]
    optimizer = torch.optim.Adam(new.parameters(), lr=1e-2)
    start, losses = new.get_output_embeddings().weight.detach().clone(), []
    for _ in range(6):
        loss = new(input_ids=ids[0], labels=ids[1]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 1.5
    latest = ids[1].max()  # of the new pieces
    assert (new.get_output_embeddings().weight[latest] - start[latest]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["nmt", "nmt_separate", "marian_multilingual"])
def test_pieces_of_one_side_alone(name, folder_of, adapted):
    folder, report = adapted(name, NEW, grow=30, grow_from="source")
    assert [one["new"] > 0 for one in report["vocabularies"]] == [True, False][: len(report["vocabularies"])]
    after, both = (opened(one)[1] for one in (folder, adapted(name, NEW, grow=30)[0]))
    texts = report["text"]
    assert texts["source"]["after"]["tokens"] < texts["source"]["before"]["tokens"]
    assert max(map(len, written(after, "source", ["zézayer"]))) <= max(map(len, written(both, "source", ["zézayer"])))
    # A word of the other side is not learnt.
    assert len(written(after, "target", ["gumybu"])[0]) > len(written(both, "target", ["gumybu"])[0])


@pytest.fixture
def published_nllb(tmp_path):
    """NLLB as it was published: codes before the mask, added tokens by id, SentencePiece's normalisation."""
    folder = families.make("nllb", tmp_path / "published")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    special, mask, codes = (tokenizer["added_tokens"][part] for part in (slice(4), slice(4, 5), slice(5, None)))
    tokenizer["added_tokens"] = [*special, *codes, *mask]
    first = min(token["id"] for token in (*codes, *mask))
    for number, token in enumerate([*codes, *mask]):
        token["id"] = first + number
    index = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    for token in tokenizer["post_processor"]["special_tokens"].values():
        token["ids"] = [index[name] for name in token["tokens"]]
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(families._sentencepiece("bpe", "both"))
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    steps = [{"type": "Precompiled", "precompiled_charsmap": charsmap}, spaces]
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": steps}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["additional_special_tokens"] = config.pop("extra_special_tokens")
    config["added_tokens_decoder"] = {
        str(token["id"]): {name: fact for name, fact in token.items() if name != "id"}
        for token in tokenizer["added_tokens"]
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_nllb_as_it_was_published(published_nllb, tmp_path):
    texts = {"source": ["ｂａｌｏ  ﬁ " + text for text in SOURCES], "target": TARGETS}
    adapt(published_nllb, tmp_path / "new", texts, trim=True, add_languages=["xxx_Latn"])
    before, after = opened(published_nllb), opened(tmp_path / "new")
    assert_kept_tokens_are_equal(before, after)
    old, new = before[1].get_vocab(), after[1].get_vocab()
    assert old["<mask>"] > old["zul_Latn"] and new["xxx_Latn"] > new["<mask>"] > new["zul_Latn"] > new["ace_Arab"]
    assert len(new) < len(old)
    for tokenizer in (before[1], after[1]):
        assert tokenizer.tokenize("ｂａｌｏ  ﬁ") == before[1].tokenize("balo fi")


def test_several_languages_and_new_pieces_at_once(folder_of, tmp_path):
    report = adapt(
        folder_of("nllb"), tmp_path / "new", NEW, trim=True, grow=20, add_languages=["xxx_Latn", "yyy_Latn"]
    )
    before, after = opened(folder_of("nllb")), opened(tmp_path / "new")
    assert_kept_tokens_are_equal(before, after)
    assert report["vocabularies"][0]["new"] > 2
    assert {"xxx_Latn", "yyy_Latn"} <= {*after[1].get_vocab()} and after[1].get_vocab()["yyy_Latn"] == len(
        after[1]
    ) - 1
    assert after[1].decode(after[1]("balo gelo.")["input_ids"], skip_special_tokens=True) == "balo gelo."


def test_a_model_of_one_pair_goes_over_to_another(folder_of, tmp_path):
    adapt(folder_of("nmt"), tmp_path / "new", NEW, languages=("fr", "en"), retrain=400)
    model, tokenizer = opened(tmp_path / "new")
    assert (model.config.source_language, model.config.target_language) == ("fr", "en")
    assert (tokenizer.source_languages, tokenizer.target_languages, tokenizer.src_lang) == (["fr"], ["en"], "fr")


@pytest.mark.parametrize(
    ("name", "settings", "texts"),
    [
        ("nmt", {"add_languages": ["ko"]}, ["trained without language tags", "data.source_language"]),
        ("m2m_100", {"add_languages": ["de"]}, ["add_languages: the model knows de already."]),
        ("mbart50", {"add_languages": ["de_DE"], "like": "de"}, ["knows de_DE already.", "like: given 'de'"]),
        ("mt5", {"add_languages": ["ko"]}, ["has no codes of languages (T5Tokenizer)"]),
        ("marian", {"add_languages": ["ko"]}, ["has no codes of languages (MarianTokenizer)"]),
        ("nllb", {"add_languages": ["deu_Latn"]}, ["add_languages: the model knows deu_Latn already."]),
        ("nllb", {"add_languages": ["<x>"]}, ["given '<x>', which is no code of a language"]),
        ("nllb", {"add_languages": ["korean"]}, ["given 'korean', which is no code of a language"]),  # of training
        ("nllb", {"add_languages": ["xxx_Latn"], "like": "german"}, ["like: given 'german'; the model has ace_Arab"]),
        ("nmt", {"retrain": 270}, ["retrain: 270 is too small: 260 special tokens, codes and bytes, and", "Allowed:"]),
    ],
)
def test_what_does_not_fit_the_model_is_refused(name, settings, texts, folder_of, tmp_path):
    with pytest.raises(ConfigError) as caught:
        adapt(folder_of(name), tmp_path / "new", **settings)
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert not any(tmp_path.iterdir())


def test_an_empty_side_is_refused(folder_of, tmp_path):
    with pytest.raises(DataError, match="the target side is empty"):
        adapt(folder_of("nmt"), tmp_path / "new", {"source": SOURCES, "target": [" "] * 20}, trim=True)


def test_other_tokenizers_are_refused(tmp_path):
    class Words:
        pass

    model, _ = families.load("nmt")
    with pytest.raises(NmtError, match="The vocabulary of a Words cannot be adapted. Known are"):
        adapt_vocabulary(model, Words(), tmp_path / "new", VocabularySettings(trim=True), SAME)


def test_settings_that_bias_ids_by_position_are_refused(folder_of, tmp_path):
    model, tokenizer = load_model(folder_of("marian"))
    model.generation_config.forced_decoder_ids = [[1, 5]]
    with pytest.raises(NmtError, match="generation_config.json sets forced_decoder_ids"):
        adapt_vocabulary(model, tokenizer, tmp_path / "new", VocabularySettings(trim=True), SAME)


def exchanged_rows(model, source, target):
    move_rows(model, source, target)
    with torch.no_grad():
        model.get_output_embeddings().weight[[7, 8]] = model.get_output_embeddings().weight[[8, 7]]


move_rows = adaptation.move_rows


def test_a_wrong_model_is_found_and_nothing_is_left(folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(adaptation, "move_rows", exchanged_rows)
    with pytest.raises(NmtError, match="the logits of kept tokens differ by up to"):
        adapt(folder_of("nllb"), tmp_path / "new", trim=True)
    assert not any(tmp_path.iterdir())


def test_a_wrong_tokenizer_is_found_and_nothing_is_left(folder_of, tmp_path, monkeypatch):
    """One merge fewer, or two tokens exchanged."""
    write = adaptation.TokenizerFiles.write

    def without_a_merge(files, folder, vocabularies, config):
        write(files, folder, vocabularies, config)
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        del tokenizer["model"]["merges"][3]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    monkeypatch.setattr(adaptation.TokenizerFiles, "write", without_a_merge)
    with pytest.raises(NmtError, match="is written .* and not "):
        adapt(folder_of("nllb"), tmp_path / "new", trim=True)

    def exchanged(files, folder, vocabularies, config):
        write(files, folder, vocabularies, config)
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        vocabulary["a"], vocabulary["o"] = vocabulary["o"], vocabulary["a"]
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    monkeypatch.setattr(adaptation.TokenizerFiles, "write", exchanged)
    with pytest.raises(NmtError, match="id .* is 'o' and not 'a'"):
        adapt(folder_of("nllb"), tmp_path / "new", trim=True)
    assert not any(tmp_path.iterdir())


def test_half_precision_stays_half_precision(folder_of, tmp_path):
    model, tokenizer = load_model(folder_of("nllb"))
    report = adapt_vocabulary(
        model.to(torch.bfloat16), tokenizer, tmp_path / "new", VocabularySettings(trim=True), SAME
    )
    assert opened(tmp_path / "new")[0].dtype == torch.bfloat16 and report["logits"]["tolerance"] > 1e-5
