"""Adapted models of every family against the models they come from, loaded as anyone loads them."""

from __future__ import annotations

import base64
import json
import random

import families
import pytest
import torch
from sentencepiece import sentencepiece_model_pb2
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hf_nmt.errors import ConfigError, DataError, NmtError
from hf_nmt.models.configuration_nmt import NmtConfig
from hf_nmt.models.modeling_nmt import NmtForConditionalGeneration
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.tokenizer_training import TokenizerSettings, train_tokenizer
from hf_nmt.translators import load_model
from hf_nmt.vocabularies import adaptation
from hf_nmt.vocabularies.adaptation import adapt_vocabulary
from hf_nmt.vocabularies.settings import VocabularySettings

# The others have the tokenizers of one of these.
FAMILIES = ["nmt", "nmt_separate", "nmt_unigram", "nllb", "m2m_100", "mt5", "marian_multilingual"]
FAMILIES += [pytest.param(name, marks=pytest.mark.slow) for name in ("nmt_tags", "mbart50", "bart")]
# Text of some of the words only, so that there is something to trim; and words that no family has seen.
SOURCES, TARGETS = (
    [text for text in side if not {*text} & {*"bp"}][:20] for side in families.pairs(200, seed=3)
)  # fmt: skip
NEW_SOURCES = [f"où zézayer {text}" for text in SOURCES]
NEW_TARGETS = [f"gumybu lykky qu {text}" for text in TARGETS]
SAME = {"source": SOURCES, "target": TARGETS}
NEW = {"source": NEW_SOURCES, "target": NEW_TARGETS}
NOTHING = {"source": [], "target": []}


def of_ours(**settings):
    """A model of ours with other tokenizer settings than those of `families`."""
    sources, targets = families.pairs(200, seed=12)
    tokenizer = train_tokenizer(
        sources, targets, TokenizerSettings(vocab_size=330, **settings), source_language="de", target_language="en"
    )
    separate = tokenizer.separate_vocabularies
    torch.manual_seed(1)
    config = NmtConfig(
        vocab_size=tokenizer.target_vocab_size, source_vocab_size=tokenizer.source_vocab_size if separate else None,
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64, source_language="de", target_language="en",
    )  # fmt: skip
    return NmtForConditionalGeneration(config).eval(), tokenizer


OURS = {"nmt_separate": {"joint": False, "byte_fallback": False}, "nmt_unigram": {"algorithm": "unigram"}}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """name of a family -> folder of its tiny model."""
    made = {}

    def folder(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("families") / name
            model, tokenizer = of_ours(**OURS[name]) if name in OURS else families.load(name)
            with torch.no_grad():  # so that no two logits are alike
                for weight in model.parameters():
                    weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
            model.save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return str(made[name])

    return folder


@pytest.fixture(scope="session")
def adapted(folder_of, tmp_path_factory):
    """name of a family, texts and settings -> folder of the adapted model, and its report."""
    made = {}

    def folder(name, texts=SAME, **settings):
        key = (name, texts["source"][0], *sorted(settings.items()))
        if key not in made:
            output = tmp_path_factory.mktemp("adapted") / name
            made[key] = output, adapt(folder_of(name), output, texts, **settings)
        return made[key]

    return folder


def adapt(folder, output, texts=SAME, languages=(None, None), **settings):
    source, target = languages
    return adapt_vocabulary(
        *load_model(folder),
        output,
        VocabularySettings(**settings),
        texts,
        source_language=source,
        target_language=target,
    )


def opened(folder):
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def written(tokenizer, side, texts):
    """Tokens of texts, by what every user calls; without what the tokenizer adds at their ends."""
    if getattr(tokenizer, "tgt_lang", "") is None:  # some refuse to work without
        tokenizer.tgt_lang = {"NmtTokenizer": "en", "M2M100Tokenizer": "de"}.get(type(tokenizer).__name__)
    if side == "target":
        getattr(tokenizer, "_switch_to_target_mode", lambda: None)()
    try:
        rows = [tokenizer.tokenize(text, add_special_tokens=False) for text in texts]
    finally:
        getattr(tokenizer, "_switch_to_input_mode", lambda: None)()
    return rows


def token_of(tokenizer, side, number):
    if side == "target" and hasattr(tokenizer, "target_backend"):
        return tokenizer.target_backend.id_to_token(number)
    if number in getattr(tokenizer, "id_to_lang_token", {}):
        return tokenizer.id_to_lang_token[number]
    return tokenizer.convert_ids_to_tokens(number)


def table(tokenizer, side):
    """token -> id."""
    if side == "target" and hasattr(tokenizer, "target_backend"):
        return tokenizer.target_backend.get_vocab()
    return tokenizer.get_vocab() | getattr(tokenizer, "lang_token_to_id", {})


def logits(model, sources, targets):
    with torch.no_grad():
        ids, decoder = torch.tensor([sources]), torch.tensor([targets])
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=decoder).logits[0]


def assert_kept_tokens_are_equal(before, after):
    """Logits of every token that both have, for random texts of such tokens."""
    (old, old_tokenizer), (new, new_tokenizer) = before, after
    tables = {side: (table(old_tokenizer, side), table(new_tokenizer, side)) for side in ("source", "target")}
    shared = {side: sorted(olds.keys() & news.keys()) for side, (olds, news) in tables.items()}
    draw = random.Random(5)
    chosen = {
        side: [token for token in draw.choices(names, k=30) if token != old_tokenizer.pad_token]
        for side, names in shared.items()
    }
    found = []
    for number, model in enumerate((old, new)):
        rows = [[tables[side][number][token] for token in chosen[side]] for side in ("source", "target")]
        columns = [tables["target"][number][token] for token in shared["target"]]
        found.append(logits(model, *rows)[:, columns])
    assert len(shared["target"]) > 20 and found[0].std() > 0.1
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


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


CODES = {
    "nllb": ("xxx_Latn", "deu_Latn", "xxx_Latn"),
    "nmt_tags": ("ko", "fr", "<2ko>"),
    "marian_multilingual": ("kor", "fra", ">>kor<<"),
}


@pytest.mark.parametrize("like", [True, False])
@pytest.mark.parametrize("name", CODES)
def test_a_new_language(name, like, folder_of, tmp_path):
    code, known, token = CODES[name]
    targets = (
        families.FAMILIES[name].targets if name != "nllb" else Languages.of(None, opened(folder_of(name))[1]).targets
    )
    adapt(folder_of(name), tmp_path / "new", NOTHING, add_languages=[code], like=known if like else None)
    before, after = opened(folder_of(name)), opened(tmp_path / "new")
    assert_kept_tokens_are_equal(before, after)
    (old, old_tokenizer), (new, tokenizer) = before, after
    examples = [token.replace(code, one) for one in ([known] if like else targets)]
    expected = old.get_input_embeddings().weight[[table(old_tokenizer, "source")[one] for one in examples]].mean(0)
    number = table(tokenizer, "source")[token]
    assert number == len(table(old_tokenizer, "source"))
    torch.testing.assert_close(new.get_input_embeddings().weight[number], expected)

    languages = Languages.of(new.config, tokenizer)
    assert {*languages.targets} == {*Languages.of(old.config, old_tokenizer).targets} | {code}
    chosen = languages.select(families.FAMILIES[name].source, code)
    assert chosen.source_language == families.FAMILIES[name].source
    ids = tokenizer(chosen.prefix + SOURCES[0])["input_ids"]
    if name == "nllb":
        assert chosen.forced_bos_token_id == number and tokenizer(text_target=TARGETS[0])["input_ids"][0] == number
    else:
        assert ids[0] == number
    if name == "nmt_tags":
        assert tokenizer(SOURCES[0], src_lang="ko", tgt_lang="en")["input_ids"][1:] == ids[1:]
    # Saved once more by its class, as a trainer does, it is the same.
    tokenizer.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert table(again, "source") == table(tokenizer, "source")
    assert again(chosen.prefix + SOURCES[0])["input_ids"] == ids


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
        ("m2m_100", {"add_languages": ["xx"]}, ["M2M100Tokenizer has its 100 codes", "start from NLLB"]),
        ("mbart50", {"add_languages": ["xx_XX"]}, ["MBart50Tokenizer has its 52 codes"]),
        ("mt5", {"add_languages": ["ko"]}, ["has no codes of languages (T5Tokenizer)"]),
        ("marian", {"add_languages": ["ko"]}, ["has no codes of languages (MarianTokenizer)"]),
        ("nllb", {"add_languages": ["deu_Latn"]}, ["add_languages: the model knows deu_Latn already."]),
        ("nllb", {"add_languages": ["<x>"]}, ["given '<x>', which is no code of a language"]),
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
