"""Splitting and joining, against the text itself."""

from __future__ import annotations

import logging
import random

import pytest

from hf_nmt.models import sentences_nmt
from hf_nmt.models.sentences_nmt import SplitText, split_text

THIRTY = {
    "de": ["Am 3. Mai kam Dr. Müller.", "Er sagte: „Hallo.“", "Wie geht es Ihnen?", "Es kostet 1.000,50 Euro!"],
    "en": ["Mr. Smith paid $3.50.", "Did he?", "He lives in the U.S. with his dog.", "Yes, e.g. on Mondays!"],
    "ko": ["안녕하세요.", "저는 학생입니다.", "어디에 가세요?", "정말 좋네요!"],
    "fr": ["Le train est là.", "Où est-il allé ?", "Je ne sais pas.", "Quelle journée !"],
    "zh": ["你好。", "你是谁？", "我是学生。", "太好了！"],
    "ja": ["こんにちは。", "お元気ですか？", "はい、元気です。", "よかった！"],
}


@pytest.mark.parametrize("language", THIRTY)
def test_a_paragraph_of_thirty_sentences_is_split_into_thirty(language):
    gap = "" if language in ("zh", "ja") else " "
    chosen = [THIRTY[language][i % 4] for i in range(30)]
    split = split_text(gap.join(chosen), language)
    assert split.sentences == chosen
    assert split.join(split.sentences) == gap.join(chosen)


def test_any_text_comes_back_with_its_own_white_space():
    rng = random.Random(0)
    gaps = ["\n", "\n\n", "\r\n", "  ", "\t", "\u00a0 ", "\u2028", "\n  \n"]
    checked = 0
    for language, parts in THIRTY.items():
        for _ in range(50):
            text = "".join(part for _ in range(6) for part in (rng.choice(parts), rng.choice(gaps)))
            text = rng.choice(["", " ", "\n"]) + text + rng.choice(["", " ", "\n\n"])
            for mode in (True, "auto", False):
                split = split_text(text, language, mode)
                assert split.join(split.sentences) == text
                assert "".join(split.pieces) == text
                checked += 1
    assert checked == 900


def test_lines_are_never_joined():
    assert split_text("ein Titel ohne Punkt\nnoch eine Zeile", "de").sentences == [
        "ein Titel ohne Punkt",
        "noch eine Zeile",
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t \r\n"])
def test_nothing_to_translate(text):
    split = split_text(text, "en")
    assert split.sentences == []
    assert split.join([]) == text


def test_spaces_follow_the_script_of_the_translation():
    chinese = split_text("你好。你是谁？我是学生。", "zh")
    assert chinese.join(["Hello.", "Who are you?", "I am a student."]) == "Hello. Who are you? I am a student."
    english = split_text("Hello. Who are you?\nA student.", "en")
    assert english.join(["你好。", "你是谁？", "学生。"]) == "你好。你是谁？\n学生。"
    assert english.join(["안녕.", "누구세요?", "학생."]) == "안녕. 누구세요?\n학생."


@pytest.mark.parametrize(
    ("text", "language", "translations", "expected"),
    [
        ("你好。你好吗？很好。", "zh", ["A.", "", "C."], "A. C."),
        ("你好。你好吗？你是谁？很好。", "zh", ["A.", "", "", "C."], "A. C."),
        ("你好。你好吗？很好。", "zh", ["甲。", "", "丙。"], "甲。丙。"),
        ("你好。你好吗？很好。", "zh", ["", "B.", ""], "B."),
        ("Hello. Who? Fine.", "en", ["A.", "", "C."], "A. C."),
        ("Hello. Who? Fine.", "en", ["你好。", "", "很好。"], "你好。很好。"),
        ("Hello.\n\nWho? Fine.\n", "en", ["A.", "", "C."], "A.\n\n C.\n"),
        ("Hello. Who? Fine.\n", "en", ["", "", ""], "  \n"),
    ],
)
def test_an_empty_translation_does_not_glue_its_neighbours(text, language, translations, expected):
    assert split_text(text, language).join(translations) == expected


THAI = ("สวัสดี", "คุณสบายดีไหม?", "ดีมาก!")
LAO = ("ສະບາຍດີ.", "ເຈົ້າສະບາຍດີບໍ?", "ດີຫຼາຍ.")
BURMESE = ("မင်္ဂလာပါ။", "နေကောင်းလား။", "ကောင်းတယ်။")
KHMER = ("សួស្តី។", "តើអ្នកសុខសប្បាយទេ?", "ល្អណាស់។")
ENGLISH = ("Hello.", "How are you?", "Very well.")
CHINESE = ("你好。", "你好吗？", "很好。")


@pytest.mark.parametrize("target", [THAI, LAO, BURMESE, KHMER], ids=["th", "lo", "my", "km"])
def test_scripts_with_spaces_between_sentences_but_not_between_words(target):
    """The Unicode standard, chapter 16, on Thai, Lao and Khmer: spaces separate phrases and sentences."""
    spaced = " ".join(target)
    assert split_text("Hello. How are you? Very well.", "en").join(target) == spaced
    assert split_text("你好。你好吗？很好。", "zh").join(target) == spaced
    assert SplitText(tuple(f"{sentence} " for sentence in THAI)).join(target).strip() == spaced
    assert split_text("Hello. How are you?\n\n  Very well.\n", "en").join(target) == (
        f"{target[0]} {target[1]}\n\n  {target[2]}\n"
    )
    pieces = SplitText((f"{target[0]} ", f"{target[1]} ", target[2]))
    assert pieces.join(ENGLISH) == " ".join(ENGLISH)
    assert pieces.join(CHINESE) == "".join(CHINESE)


def test_a_cut_between_words_without_spaces_becomes_a_space():
    thai = SplitText(("วันนี้เราไป", "โรงเรียน"))
    assert thai.join(["Today we go", "to school"]) == "Today we go to school"
    assert thai.join(["今天我们去", "学校"]) == "今天我们去学校"
    assert thai.join(["ມື້ນີ້ພວກເຮົາໄປ", "ໂຮງຮຽນ"]) == "ມື້ນີ້ພວກເຮົາໄປໂຮງຮຽນ"
    assert SplitText(("unbeliev", "able")).join(["unglaub", "lich"]) == "unglaublich"


@pytest.mark.parametrize(
    ("language", "sentences", "gap"),
    [("lo", LAO, " "), ("my", BURMESE, ""), ("my", BURMESE, " "), ("km", KHMER, " "), ("khm_Khmr", KHMER, "")],
)
def test_sentences_of_scripts_without_spaces_between_words_are_found(language, sentences, gap):
    text = gap.join(sentences)
    split = split_text(text, language)
    assert split.sentences == list(sentences) and split.join(sentences) == text
    assert split.join(ENGLISH) == "Hello. How are you? Very well."


def test_the_khmer_and_so_on_is_no_end_of_a_sentence():
    assert split_text("ឆ្កែ ឆ្មា ។ល។ ល្អ", "km").sentences == ["ឆ្កែ ឆ្មា ។ល។", "ល្អ"]


@pytest.mark.parametrize(
    "text",
    ["5!=6", "What?<b>Yes</b>", "Wow!Really?", "Read it!\u200bNow.", "A.B! C", "5!5!", "ไปไหน มาไหน", "你好! 5!"],
)
def test_what_was_not_apart_stays_together(text):
    for language in ("en", "zh", None):
        split = split_text(text, language)
        assert split.join(split.sentences) == text
        characters = SplitText(tuple(text))
        assert characters.join(characters.sentences) == text


def test_a_gap_without_a_space_is_kept_or_filled_by_the_script_of_the_source():
    assert SplitText(("Wow!", "Really?")).join(["Wow!", "Wirklich?"]) == "Wow!Wirklich?"
    assert SplitText(("Wow!", "Really?")).join(["哇！", "真的？"]) == "哇！真的？"
    for chinese in ("你好!", "你好。\u201d", "第5!", "你好\uff01"):  # the mark at the end may be that of any script
        assert SplitText((chinese, "真的?")).join(["Hello!", "Really?"]) == "Hello! Really?"
        assert SplitText((chinese, "真的?")).join([chinese, "5?"]) == f"{chinese}5?"
    assert SplitText(("Hello! ", "Really?")).join(["你好!", "真的?"]) == "你好!真的?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one two three, four five six", ["one two three, ", "four five six"]),
        ("one two three four", ["one two ", "three four"]),
        ("price 1,000,000 in euros now", ["price 1,000,000 ", "in euros now"]),
        ("我们今天去学校，明天回家看书", ["我们今天去学校，", "明天回家看书"]),
        ("abcdefghijkl", ["abcdef", "ghijkl"]),
    ],
)
def test_a_sentence_that_is_too_long_is_cut_at_the_best_place(text, expected):
    split = split_text(text, None, False).cut(lambda part: len(part) <= len(text) * 0.7)
    assert list(split.pieces) == expected
    assert split.num_cut == 1


def test_cutting_ends_and_loses_nothing():
    text = "  aaaa bbbb, cccc dddd eeee; ffff.\n ggggggggggggggggggggggg  "
    for limit in range(1, 40):
        split = split_text(text, "en", False).cut(lambda part, limit=limit: len(part) <= limit)
        assert "".join(split.pieces) == text
        assert all(len(sentence) <= limit for sentence in split.sentences)


@pytest.fixture
def without_splitter(monkeypatch):
    monkeypatch.setattr(sentences_nmt, "_segmenter", lambda: None)
    sentences_nmt._warn_without_splitter.cache_clear()


def test_without_the_splitter_lines_stay_whole_with_one_warning(without_splitter, caplog):
    with caplog.at_level(logging.WARNING):
        assert split_text("A b. C d.\nE f.", "en").sentences == ["A b. C d.", "E f."]
        split_text("G h. I j.", "en")
    assert [record.message for record in caplog.records] == [
        "The package sentencex is not installed: texts are not split into sentences. "
        "Install it with: pip install sentencex"
    ]


def test_splitting_that_is_insisted_on_needs_the_splitter(without_splitter):
    with pytest.raises(ValueError, match="needs the package sentencex. Install it with: pip install sentencex"):
        split_text("A b. C d.", "en", True)
