"""Korean and English inflection against forms written by hand from the school grammars."""

from __future__ import annotations

import pytest

from hf_nmt.data.controlled import english_morphology as english
from hf_nmt.data.controlled.korean_morphology import (
    Stem,
    attach,
    copula,
    copula_past,
    final,
    honorific,
    native_number,
    particle,
    past,
    plain,
    present_adnominal,
    sino_number,
)

# Stem, kind; formal present, polite present, plain present, polite past, -(eu)myeon, before a noun, -eoseo.
CONJUGATIONS = [
    ("먹", "verb", "먹습니다 먹어요 먹는다 먹었어요 먹으면 먹는 먹어서"),
    ("가", "verb", "갑니다 가요 간다 갔어요 가면 가는 가서"),
    ("오", "verb", "옵니다 와요 온다 왔어요 오면 오는 와서"),
    ("보내", "verb", "보냅니다 보내요 보낸다 보냈어요 보내면 보내는 보내서"),
    ("배우", "verb", "배웁니다 배워요 배운다 배웠어요 배우면 배우는 배워서"),
    ("마시", "verb", "마십니다 마셔요 마신다 마셨어요 마시면 마시는 마셔서"),
    ("켜", "verb", "켭니다 켜요 켠다 켰어요 켜면 켜는 켜서"),
    ("쉬", "verb", "쉽니다 쉬어요 쉰다 쉬었어요 쉬면 쉬는 쉬어서"),
    ("되", "verb", "됩니다 돼요 된다 됐어요 되면 되는 돼서"),
    ("공부하", "verb", "공부합니다 공부해요 공부한다 공부했어요 공부하면 공부하는 공부해서"),
    ("앉", "verb", "앉습니다 앉아요 앉는다 앉았어요 앉으면 앉는 앉아서"),
    ("읽", "verb", "읽습니다 읽어요 읽는다 읽었어요 읽으면 읽는 읽어서"),
    # Regular stems that look irregular.
    ("입", "verb", "입습니다 입어요 입는다 입었어요 입으면 입는 입어서"),
    ("닫", "verb", "닫습니다 닫아요 닫는다 닫았어요 닫으면 닫는 닫아서"),
    ("받", "verb", "받습니다 받아요 받는다 받았어요 받으면 받는 받아서"),
    ("씻", "verb", "씻습니다 씻어요 씻는다 씻었어요 씻으면 씻는 씻어서"),
    ("웃", "verb", "웃습니다 웃어요 웃는다 웃었어요 웃으면 웃는 웃어서"),
    ("넣", "verb", "넣습니다 넣어요 넣는다 넣었어요 넣으면 넣는 넣어서"),
    ("좋", "adjective", "좋습니다 좋아요 좋다 좋았어요 좋으면 좋은 좋아서"),
    ("치르", "verb", "치릅니다 치러요 치른다 치렀어요 치르면 치르는 치러서"),
    # p
    ("돕", "verb", "돕습니다 도와요 돕는다 도왔어요 도우면 돕는 도와서"),
    ("굽", "verb", "굽습니다 구워요 굽는다 구웠어요 구우면 굽는 구워서"),
    ("눕", "verb", "눕습니다 누워요 눕는다 누웠어요 누우면 눕는 누워서"),
    ("춥", "adjective", "춥습니다 추워요 춥다 추웠어요 추우면 추운 추워서"),
    ("어렵", "adjective", "어렵습니다 어려워요 어렵다 어려웠어요 어려우면 어려운 어려워서"),
    ("아름답", "adjective", "아름답습니다 아름다워요 아름답다 아름다웠어요 아름다우면 아름다운 아름다워서"),
    # t
    ("듣", "verb", "듣습니다 들어요 듣는다 들었어요 들으면 듣는 들어서"),
    ("걷", "verb", "걷습니다 걸어요 걷는다 걸었어요 걸으면 걷는 걸어서"),
    ("묻", "verb", "묻습니다 물어요 묻는다 물었어요 물으면 묻는 물어서"),
    # l
    ("만들", "verb", "만듭니다 만들어요 만든다 만들었어요 만들면 만드는 만들어서"),
    ("살", "verb", "삽니다 살아요 산다 살았어요 살면 사는 살아서"),
    ("길", "adjective", "깁니다 길어요 길다 길었어요 길면 긴 길어서"),
    # s
    ("짓", "verb", "짓습니다 지어요 짓는다 지었어요 지으면 짓는 지어서"),
    ("낫", "verb", "낫습니다 나아요 낫는다 나았어요 나으면 낫는 나아서"),
    # lu
    ("고르", "verb", "고릅니다 골라요 고른다 골랐어요 고르면 고르는 골라서"),
    ("부르", "verb", "부릅니다 불러요 부른다 불렀어요 부르면 부르는 불러서"),
    ("모르", "verb", "모릅니다 몰라요 모른다 몰랐어요 모르면 모르는 몰라서"),
    ("빠르", "adjective", "빠릅니다 빨라요 빠르다 빨랐어요 빠르면 빠른 빨라서"),
    ("푸르", "adjective", "푸릅니다 푸르러요 푸르다 푸르렀어요 푸르면 푸른 푸르러서"),
    # u
    ("쓰", "verb", "씁니다 써요 쓴다 썼어요 쓰면 쓰는 써서"),
    ("끄", "verb", "끕니다 꺼요 끈다 껐어요 끄면 끄는 꺼서"),
    ("모으", "verb", "모읍니다 모아요 모은다 모았어요 모으면 모으는 모아서"),
    ("바쁘", "adjective", "바쁩니다 바빠요 바쁘다 바빴어요 바쁘면 바쁜 바빠서"),
    ("예쁘", "adjective", "예쁩니다 예뻐요 예쁘다 예뻤어요 예쁘면 예쁜 예뻐서"),
    # h
    ("빨갛", "adjective", "빨갛습니다 빨개요 빨갛다 빨갰어요 빨가면 빨간 빨개서"),
    ("하얗", "adjective", "하얗습니다 하얘요 하얗다 하얬어요 하야면 하얀 하얘서"),
    # Existence, and adjectives that end in a copula.
    ("재미있", "exist", "재미있습니다 재미있어요 재미있다 재미있었어요 재미있으면 재미있는 재미있어서"),
    (
        "효과적이",
        "adjective",
        "효과적입니다 효과적이에요 효과적이다 효과적이었어요 효과적이면 효과적인 효과적이어서",
    ),
]
# Stem and ending, and the form.
ENDINGS = """
    읽 으ㄴ 읽은, 만들 으ㄴ 만든, 듣 으ㄴ 들은, 돕 으ㄴ 도운, 사 으ㄴ 산,
    읽 으ㄹ 읽을, 만들 으ㄹ 만들, 걷 으ㄹ 걸을, 굽 으ㄹ 구울, 쓰 으ㄹ 쓸,
    빌리 으러 빌리러, 놀 으러 놀러, 찾 으러 찾으러, 듣 으러 들으러, 만들 으려고 만들려고, 짓 으려고 지으려고,
    팔 으니까 파니까, 먹 으니까 먹으니까, 듣 으면서 들으면서, 열 으면서 열면서, 열 기 열기, 열 고 열고,
    눕 지 눕지, 부르 자마자 부르자마자, 모르 어야 몰라야, 쓰 어도 써도
"""


@pytest.mark.parametrize(("text", "kind", "expected"), CONJUGATIONS)
def test_conjugations(text, kind, expected):
    stem = Stem(text, kind)
    forms = [
        final(stem, "formal"),
        final(stem, "polite"),
        plain(stem),
        final(past(stem), "polite"),
        attach(stem, "으면"),
        present_adnominal(stem),
        attach(stem, "어서"),
    ]
    assert forms == expected.split()


@pytest.mark.parametrize(("text", "ending", "expected"), [entry.split() for entry in ENDINGS.split(",")])
def test_endings(text, ending, expected):
    assert attach(Stem(text), ending) == expected


def test_honorific_forms():
    forms = [final(honorific(Stem(text)), "polite") for text in ("가", "읽", "만들", "걷", "돕")]
    assert forms == ["가세요", "읽으세요", "만드세요", "걸으세요", "도우세요"]
    assert [plain(past(honorific(Stem(text)))) for text in ("오", "앉", "팔")] == ["오셨다", "앉으셨다", "파셨다"]
    assert final(Stem("마시"), "polite") == "마셔요"  # the stem itself ends in -si


@pytest.mark.parametrize(
    ("style", "mood", "expected"),
    [
        ("formal", "question", ["갑니까", "읽습니까", "큽니까"]),
        ("plain", "question", ["가니", "읽니", "크니"]),
        ("written", "question", ["가는가", "읽는가", "큰가"]),
        ("formal", "request", ["가십시오", "읽으십시오", "크십시오"]),
        ("plain", "request", ["가라", "읽어라", "커라"]),
        ("formal", "proposal", ["갑시다", "읽읍시다", "큽시다"]),
    ],
)
def test_moods(style, mood, expected):
    stems = (Stem("가"), Stem("읽"), Stem("크", "adjective"))
    assert [final(stem, style, mood) for stem in stems] == expected


def test_formal_writing_leaves_vowels_apart():
    full = [plain(past(Stem(text, "verb", full=True))) for text in ("보", "주", "되", "보여 주", "오", "배우")]
    assert full == ["보았다", "주었다", "되었다", "보여 주었다", "왔다", "배웠다"]
    assert [plain(past(Stem(text))) for text in ("보", "주", "되")] == ["봤다", "줬다", "됐다"]


def test_copula():
    assert [copula(noun, "polite") for noun in ("학생", "의사")] == ["학생이에요", "의사예요"]
    assert [copula(noun, "plain") for noun in ("학생", "의사")] == ["학생이다", "의사다"]
    assert [plain(copula_past(noun)) for noun in ("학생", "의사")] == ["학생이었다", "의사였다"]
    assert final(Stem("아니", "adjective"), "polite") == "아니에요"


PARTICLES = [
    ("책", "책은 책이 책을 책과 책으로 책에서"),
    ("사과", "사과는 사과가 사과를 사과와 사과로 사과에서"),
    ("서울", "서울은 서울이 서울을 서울과 서울로 서울에서"),
    ("부산", "부산은 부산이 부산을 부산과 부산으로 부산에서"),
    ("파리", "파리는 파리가 파리를 파리와 파리로 파리에서"),
]


@pytest.mark.parametrize(("noun", "expected"), PARTICLES)
def test_particles(noun, expected):
    assert [particle(noun, name) for name in ("은", "이", "을", "와", "으로", "에서")] == expected.split()


def test_pronouns_fuse_with_particles():
    assert [particle("나", "이"), particle("저", "이"), particle("나", "의"), particle("저", "의")] == [
        "내가",
        "제가",
        "내",
        "제",
    ]


def test_korean_numerals():
    assert [native_number(number) for number in (1, 3, 11, 20, 21, 35, 99)] == [
        "한",
        "세",
        "열한",
        "스무",
        "스물한",
        "서른다섯",
        "아흔아홉",
    ]
    assert [sino_number(number) for number in (10, 15, 120, 1_000, 11_000, 35_000)] == [
        "십",
        "십오",
        "백이십",
        "천",
        "만 천",
        "삼만 오천",
    ]


ENGLISH_VERBS = [
    ("take care of", "takes care of took care of taken care of taking care of"),
    ("go", "goes went gone going"),
    ("study", "studies studied studied studying"),
    ("play", "plays played played playing"),
    ("lie down", "lies down lay down lain down lying down"),
    ("run", "runs ran run running"),
    ("submit", "submits submitted submitted submitting"),
    ("visit", "visits visited visited visiting"),
    ("write", "writes wrote written writing"),
    ("see", "sees saw seen seeing"),
    ("wash", "washes washed washed washing"),
    ("begin", "begins began begun beginning"),
]


@pytest.mark.parametrize(("verb", "expected"), ENGLISH_VERBS)
def test_english_verbs(verb, expected):
    forms = (english.third_person, english.past_tense, english.past_participle, english.gerund)
    assert " ".join(form(verb) for form in forms) == expected


def test_english_plurals():
    table = """
        book books, box boxes, city cities, day days, child children, policewoman policewomen, knife knives,
        photo photos, potato potatoes, studio studios, class classes, sheep sheep, church churches, hero heroes
    """
    nouns = dict(entry.split() for entry in table.split(","))
    assert {noun: english.plural(noun) for noun in nouns} == nouns
    assert english.plural("rice cake") == "rice cakes"


def test_english_comparison():
    short = """
        big bigger biggest, happy happier happiest, safe safer safest, quiet quieter quietest, cheap cheaper cheapest,
        red redder reddest, low lower lowest, simple simpler simplest
    """
    for adjective, comparative, superlative in (entry.split() for entry in short.split(",")):
        assert english.comparison(adjective) == (comparative, superlative)
    for adjective in ("tired", "famous", "fun", "expensive", "serious", "modern"):
        assert english.comparison(adjective) == (f"more {adjective}", f"most {adjective}")


def test_english_articles_and_numerals():
    phrases = (
        "apple",
        "hour",
        "university",
        "umbrella",
        "useful book",
        "honest man",
        "old car",
        "European car",
        "MRI",
    )
    assert [english.indefinite(phrase).split()[0] for phrase in phrases] == [
        *("an", "an", "a", "an", "a", "an", "an", "a", "an")
    ]
    assert english.number_words(35_000) == "thirty-five thousand"
    assert [english.ordinal_words(number) for number in (1, 2, 3, 5, 9, 12, 20, 21)] == [
        *("first", "second", "third", "fifth", "ninth", "twelfth", "twentieth", "twenty-first")
    ]
