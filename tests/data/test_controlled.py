"""The built-in corpus: that it is a language, that its splits are apart, and that it is not trivial."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from functools import cache
from itertools import combinations as combinations_of
from itertools import islice

import numpy as np
import pytest
import sacrebleu

from hf_nmt.data.controlled import build, lexicon
from hf_nmt.data.controlled.corpus import sentences
from hf_nmt.data.controlled.english_morphology import gerund, past_participle, past_tense, plural, third_person
from hf_nmt.data.controlled.held_out import combinations, split_of
from hf_nmt.data.controlled.vocabulary import DOMAINS, vocabulary
from hf_nmt.data.controlled.world import world
from hf_nmt.errors import DataError

COLUMNS = ["source", "target", "references", "domain", "article", "position"]
SIZES = ("tiny", "full")
INFLECTIONS = (third_person, past_tense, past_participle, gerund)


@cache
def corpus(size: str, split: str) -> dict[str, list]:
    return build(size, split)[:]


@pytest.fixture
def train():
    return corpus("tiny", "train")


@pytest.fixture(params=SIZES)
def test_split(request):
    return corpus(request.param, "test")


def words(text: str) -> list[str]:
    return re.findall(r"[\w'.:]*\w", text)


def forms(texts) -> set[str]:
    return {word.lower() for text in texts for word in words(text)}


# What build returns


def test_columns_and_sizes():
    data = build("tiny", "validation")
    assert data.column_names == COLUMNS and len(data) == 500
    assert [len(corpus(*name)["source"]) for name in (("tiny", "train"), ("tiny", "test"), ("full", "test"))] == [
        *(25_000, 1_000, 10_000)
    ]


def test_the_target_is_the_first_reference(test_split):
    firsts = [references[0] for references in test_split["references"]]
    assert firsts == test_split["target"]


@pytest.mark.parametrize(
    ("size", "split", "digest"),
    [
        ("tiny", "validation", "55d7dcc99e30b5b5"),
        ("tiny", "test", "1297faef760818d4"),
        ("full", "validation", "797b45d6811f213a"),
    ],
)
def test_the_same_bytes_everywhere(size, split, digest):
    rows = build(size, split)[:300]
    text = json.dumps([rows[name] for name in COLUMNS], ensure_ascii=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_another_seed_is_another_sample_of_the_same_language(train):
    other = set(build("tiny", "test", seed=2)["source"])
    assert len(other & set(corpus("tiny", "test")["source"])) < 0.2 * len(other)
    assert not other & set(train["source"])


@pytest.mark.parametrize(("size", "split"), [("huge", "train"), ("tiny", "dev")])
def test_an_unknown_size_or_split_is_refused(size, split):
    with pytest.raises(DataError, match=r"has no (size 'huge'|split 'dev'). Choose one of: (tiny, full|train, valid)"):
        build(size, split)


# Splits


@pytest.mark.parametrize("size", SIZES)
def test_held_out_combinations_are_never_in_training(size):
    held, seldom = {}, world(size).seldom
    for split in ("train", "validation", "test"):
        rows = islice(sentences(size, split, 7), 600)
        pairs = [[pair for pair in combinations(row.meaning.content) if seldom.isdisjoint(pair)] for row in rows]
        held[split] = [{split_of(*pair) for pair in of_one} - {"train"} for of_one in pairs]
    assert all(splits == set() for splits in held["train"])
    assert all(splits == {"validation"} for splits in held["validation"])
    assert all(splits == {"test"} for splits in held["test"])


def test_no_held_out_sentence_is_in_training(train):
    sources, targets = set(train["source"]), set(train["target"])
    for split in ("validation", "test"):
        held = corpus("tiny", split)
        assert not sources & set(held["source"])
        assert not targets & {text for references in held["references"] for text in references}


def test_held_out_words_are_known_from_training(train):
    known = Counter(word.lower() for text in train["target"] for word in words(text))
    unknown = [word for text in corpus("tiny", "test")["target"] for word in words(text) if word.lower() not in known]
    assert len(unknown) <= 5, unknown


def test_no_source_comes_twice(train, test_split):
    for data in (train, test_split):
        assert len(set(data["source"])) == len(data["source"])


def references_by_source(rows, said=str) -> list[set[frozenset[str]]]:
    """For each source that was drawn more than once, the sets of references that it came with."""
    found: dict[str, list[frozenset[str]]] = {}
    for row in rows:
        found.setdefault(said(row.source), []).append(frozenset(row.references))
    return [set(sets) for sets in found.values() if len(sets) > 1]


def test_a_source_drawn_again_has_the_same_references():
    """Several seeds draw the same source from meanings of their own: what Korean does not say, English must not."""
    rows = [row for seed in range(1, 7) for row in islice(sentences("tiny", "train", seed), 2_500)]
    again = references_by_source(rows)
    assert len(again) > 200 and max(map(len, again)) == 1
    # A Korean without the past tense, or without its demonstrative, would be found out.
    for lost in ("었", "그 "):
        assert max(map(len, references_by_source(rows, lambda source, lost=lost: source.replace(lost, "")))) > 1


# The shape of the corpus


def test_domains_are_balanced(test_split):
    shares = Counter(test_split["domain"])
    assert set(shares) == set(DOMAINS) and len(DOMAINS) == 6
    assert all(0.8 < 6 * count / shares.total() < 1.2 for count in shares.values())


def test_lengths():
    lengths = [len(text.split()) for text in corpus("full", "test")["target"]]
    assert min(lengths) == 4 and 34 <= max(lengths) <= 40
    assert 8 < np.mean(lengths) < 14


def test_word_forms():
    data = corpus("full", "test")
    assert len(forms(data["source"])) > 8_000
    assert len(forms(data["target"])) > 2_000


def test_sentences_of_an_article_belong_together(test_split):
    names = {person.english for person in vocabulary().people}
    articles: dict[str, list[dict]] = {}
    for values in zip(*test_split.values(), strict=True):
        row = dict(zip(test_split, values, strict=True))
        articles.setdefault(row["article"], []).append(row)
    assert np.mean([len(rows) for rows in articles.values()]) > 4
    for rows in articles.values():
        assert [row["position"] for row in rows] == list(range(len(rows)))
        assert len({row["domain"] for row in rows}) == 1
        assert len({word for row in rows for word in words(row["target"])} & names) <= 3
        assert len({style_of(row["source"]) for row in rows}) == 1


def style_of(source: str) -> str:
    text = source.rstrip(".?")
    # A syllable closed by p before -nida tells it from anida, before -sida from the honorific -sida.
    if text.endswith("시오") or (text.endswith(("니다", "니까", "시다")) and (ord(text[-3]) - 0xAC00) % 28 == 17):
        return "formal"
    return "polite" if text.endswith("요") else "plain"


# Korean


def test_particles_agree_with_the_sound_before_them(train, test_split):
    """By unicode arithmetic alone: a syllable is closed where its code is not a multiple of 28."""
    nouns = {noun.korean for noun in (*vocabulary().nouns, *vocabulary().people, *vocabulary().titles)}
    nouns |= {noun.counter for noun in vocabulary().nouns if noun.counter} | {noun + "들" for noun in nouns}
    shapes = {"은": "는", "이": "가", "을": "를", "과": "와", "으로": "로"}
    closed, opened = set(shapes), set(shapes.values())
    checked = Counter()
    for source in [*train["source"][:8_000], *test_split["source"]]:
        for word in source.split():
            for length in (2, 1):
                noun, particle = word[:-length], word[-length:]
                if noun in nouns and particle in closed | opened and word not in nouns:
                    tail = (ord(noun[-1]) - 0xAC00) % 28
                    like_closed = tail != 0 and not (tail == 8 and particle in ("으로", "로"))
                    assert (particle in closed) == like_closed, source
                    checked[particle] += 1
                    break
    assert sum(checked.values()) > 5_000 and all(
        checked[particle] > 10 for particle in (closed | opened) - {"으로", "로"}
    )


def test_elders_are_honored(test_split):
    signs = re.compile(r"(시|신|실|십|셨|셔|세요|계|드리)")
    honored = [source for source in test_split["source"] if re.match(r"\S+( 선생님)?께서는 ", source)]
    assert len(honored) > 10
    # Some verbs have an honorific of their own.
    assert not any(
        re.search(r"말하[시셨신실십]|먹으[시셨신실십]|아프[시셨신실십]|[^가-힣]자[시셨신실십]", text)
        for text in honored
    )
    assert all(signs.search(" ".join(source.split()[-4:])) for source in honored)


def test_both_languages_name_the_same(test_split):
    named = [*vocabulary().people, *(noun for noun in vocabulary().nouns if "city" in noun.classes)]
    spoken = {noun.korean: noun.english for noun in named}
    spoken |= {noun.family[0] + noun.korean: noun.english for noun in vocabulary().people}
    particles = r"(에게서|에게|에서|보다|으로|[은는이가을를과와의도만로에])?$"
    for source, target in zip(test_split["source"], test_split["target"], strict=True):
        found = {spoken.get(word) or spoken.get(re.sub(particles, "", word)) for word in words(source)} - {None}
        assert found == {noun.english for noun in named if re.search(rf"\b{noun.english}\b", target)}, (source, target)


def test_no_english_noun_comes_from_nowhere(test_split):
    lists = vocabulary()
    koreans: dict[str, set[str]] = {}
    elsewhere = {word for entry in (*lists.verbs, *lists.adjectives, *lists.times) for word in entry.english.split()}
    elsewhere |= {inflected(verb.english.split()[0]) for verb in lists.verbs for inflected in INFLECTIONS}
    for noun in lists.nouns:
        elsewhere.update(words(noun.english)[:-1], noun.unit.split(), (plural(noun.unit or "x"),))
        if noun.form == "count" and " " not in noun.english:
            for word in (noun.english, plural(noun.english)):
                koreans.setdefault(word, set()).add(noun.korean)
        else:
            elsewhere.update(words(noun.english), words(plural(noun.english)))
    checked = 0
    for source, target in zip(test_split["source"], test_split["target"], strict=True):
        for word in set(words(target)) & (koreans.keys() - elsewhere):
            assert any(korean in source for korean in koreans[word]), (word, source, target)
            checked += 1
    assert checked > len(test_split["source"]) / 2


def test_korean_is_spaced_and_ended(test_split):
    for source in test_split["source"]:
        assert source == " ".join(source.split()) and source[-1] in ".?" and source[-2] not in " ."
        assert not re.search(r"[a-zA-Z]", source)


# References


def test_references_are_distinct_and_well_formed(test_split):
    counts = Counter()
    for references in test_split["references"]:
        counts[len(references)] += 1
        assert len(set(references)) == len(references) <= 4
        for text in references:
            assert re.fullmatch(r"[A-Z0-9][\w ',.:-]*[\w.'][.?]", text), text
            assert "  " not in text and " ," not in text and not re.search(r"\b(a|an|the|that|to|of) \1\b", text), text
    assert 1 - counts[1] / counts.total() > 0.75


def test_references_say_the_same(test_split):
    """Names, places, days and numbers are in every reference, and each is about as long as the first."""
    proper = {noun.english for noun in (*vocabulary().nouns, *vocabulary().people) if noun.form == "name"}
    for references in test_split["references"]:
        anchors = [
            Counter(
                word.removesuffix("'s")
                for word in words(text)
                if word.removesuffix("'s") in proper or word[0].isdigit()
            )
            for text in references
        ]
        assert all(found == anchors[0] for found in anchors), references
        lengths = [len(text.split()) for text in references]
        assert max(lengths) - min(lengths) <= 4, references


def test_indefinite_articles_agree(train, test_split):
    odd = {"hour", "honest", "university", "unique", "useful", "uniform", "user", "unfamiliar", "umbrella"}
    checked = 0
    for text in [*train["target"][:5_000], *test_split["target"]]:
        for article, letter, rest in re.findall(r"\b(an?) (\w)(\w*)", text.lower()):
            if letter + rest not in odd and article + letter != "am":
                assert (article == "an") == (letter in "aeiou"), text
                checked += 1
    assert checked > 2_000


# The word lists


def test_every_word_can_be_used_and_every_class_has_words():
    lists = vocabulary()
    known = set().union(*(noun.classes for noun in (*lists.nouns, *lists.people)))
    asked = [verb.objects | verb.subjects | verb.places for verb in lists.verbs]
    asked += [word.of for word in lists.adjectives] + [noun.holds for noun in lists.nouns]
    assert set().union(*asked) - known == set()
    assert all(manner in lists.manners for verb in lists.verbs for manner in verb.manners)
    roles = {name for verb in lists.verbs for name in verb.objects | verb.subjects | verb.places} | {"job"}
    assert [noun.korean for noun in lists.nouns if not noun.classes & roles] == []
    spellings = Counter(noun.korean for noun in (*lists.nouns, *lists.people))
    assert spellings.most_common(1)[0][1] == 1  # one Korean noun, one English noun


def test_a_verb_of_several_senses_is_told_by_its_object():
    lists = vocabulary()
    verbs = [verb for verb in lists.verbs if verb.ambiguous and not verb.flags & {"report", "inquiry"}]
    pairs = [(one, other) for one, other in combinations_of(verbs, 2) if one.stem.text == other.stem.text]
    assert len(pairs) > 5
    for one, other in pairs:
        shared = [noun.korean for noun in lists.nouns if noun.one_of(one.objects) and noun.one_of(other.objects)]
        assert one.english == other.english or (one.particle and shared == []), (one.stem.text, shared)


@pytest.mark.parametrize("size", SIZES)
def test_the_words_that_a_size_uses_fit_together(size):
    for domain, verbs in world(size).actions.items():
        assert len(verbs) > 10
        for verb in verbs:
            assert verb.particle == "" or world(size).arguments[verb, domain], verb.english


# Not trivial


def references_of(rows) -> list[list[str]]:
    most = max(len(references) for references in rows["references"])
    return [[row[index] if index < len(row) else row[0] for row in rows["references"]] for index in range(most)]


def gloss(source: str, entries: dict[str, str]) -> str:
    """Each word or longest known phrase by its entry, its particle before it as a preposition."""
    tokens, output, position = source.rstrip(".?").split(), [], 0
    while position < len(tokens):
        for size in range(min(4, len(tokens) - position), 0, -1):
            entry = entry_of(" ".join(tokens[position : position + size]), entries)
            if entry is not None:
                break
        output += entry if entry is not None else [tokens[position]]
        position += size
    text = " ".join(word for word in output if word)
    return text[:1].upper() + text[1:] + source[-1]


def entry_of(phrase: str, entries: dict[str, str]) -> list[str] | None:
    for length in range(len(phrase), 0, -1):
        stem, particle = phrase[:length], phrase[length:]
        if " " in particle:
            return None
        if stem in entries and (not particle or f"-{particle}" in entries):
            return [entries.get(f"-{particle}", ""), entries[stem]]
    return None


def test_word_for_word_translation_fails(test_split):
    rows, entries = {name: values[:500] for name, values in test_split.items()}, lexicon()
    assert entries["책"] == "book" and entries["읽었습니다"] == "read" and entries["-에서"] == "at"
    hypotheses = [gloss(source, entries) for source in rows["source"]]
    unknown = sum(bool(re.search("[가-힣]", word)) for text in hypotheses for word in text.split())
    assert unknown < 0.05 * sum(len(text.split()) for text in hypotheses)  # a poor lexicon would prove nothing
    assert 2 < sacrebleu.corpus_bleu(hypotheses, references_of(rows)).score < 30


def trigrams(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row number and hashed character trigram of every trigram in the texts."""
    padded = [f"  {text} " for text in texts]
    codes = np.array([ord(letter) for letter in "".join(padded)], dtype=np.uint64)
    rows = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    hashed = codes[:-2] * np.uint64(1_000_003) ^ codes[1:-1] * np.uint64(8_191) ^ codes[2:]
    inside = rows[:-2] == rows[2:]
    return rows[:-2][inside], (hashed % np.uint64(1 << 18)).astype(np.int64)[inside]


def nearest(queries: list[str], texts: list[str]) -> list[int]:
    """For each query the text of the highest cosine of TF-IDF vectors over character trigrams."""
    rows, keys = trigrams(texts)
    frequency = np.bincount(np.unique(np.stack([rows, keys]), axis=1)[1], minlength=1 << 18)
    weights = np.log((1 + len(texts)) / (1 + frequency))
    cells, counts = np.unique(rows * (1 << 18) + keys, return_counts=True)
    cell_rows, cell_keys = cells >> 18, cells & ((1 << 18) - 1)
    values = np.log1p(counts) * weights[cell_keys]
    values /= np.sqrt(np.bincount(cell_rows, values**2, minlength=len(texts)))[cell_rows]
    best = []
    for query in queries:
        vector = np.log1p(np.bincount(trigrams([query])[1], minlength=1 << 18)) * weights
        best.append(int(np.bincount(cell_rows, values * vector[cell_keys], minlength=len(texts)).argmax()))
    return best


@pytest.mark.parametrize("side", ["source", "target"])
def test_copying_the_nearest_training_sentence_fails(train, side):
    """Also where the neighbour is looked up by the target, which no translator has."""
    rows = {name: values[::8] for name, values in corpus("tiny", "test").items()}
    found = nearest(rows[side], train[side])
    assert nearest(train[side][:3], train[side]) == [0, 1, 2]
    score = sacrebleu.corpus_bleu([train["target"][index] for index in found], references_of(rows)).score
    assert 10 < score < 50


@pytest.mark.slow
def test_the_whole_of_the_full_corpus():
    train = build("full", "train")
    assert len(train) == 210_000 == len(set(train["source"]))
    lengths = [len(text.split()) for text in train["target"]]
    assert (min(lengths), max(lengths)) == (4, 40)
    sources, targets = set(train["source"]), set(train["target"])
    known = forms(targets)
    assert len(known) > 3_000 and len(forms(sources)) > 15_000
    for split in ("validation", "test"):
        held = build("full", split)
        assert not sources & set(held["source"])
        assert not targets & {text for references in held["references"] for text in references}
        unknown = [word for text in held["target"] for word in words(text) if word.lower() not in known]
        assert len(unknown) < 0.0005 * sum(len(text.split()) for text in held["target"])
