"""Lines of input for a model that reads the sentences before a sentence."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hf_nmt.generation.contexts import sentences_read, shortened, with_context
from hf_nmt.generation.decoding import DecodingSettings
from hf_nmt.generation.files import open_output, translate_file, translate_lines
from hf_nmt.generation.inputs import Input, read_lines
from hf_nmt.generation.meter import Statistics
from hf_nmt.protocols import Translation

TEXT = "eins\nzwei\ndrei\nvier\n\nneu\nweiter\n"
READ = ["eins", "eins ||| zwei", "eins ||| zwei ||| drei", "zwei ||| drei ||| vier", "", "neu", "neu ||| weiter"]


class Echo:
    """Gives back what it reads; stops after so many texts."""

    def __init__(self, sentences: int, stop: int = 99):
        self.model = SimpleNamespace(config=SimpleNamespace(context_sentences=sentences))
        self.statistics = Statistics()
        self.read: list[str] = []
        self.stop = stop

    def translate(self, sources: list[str], settings: Any = None, **_: Any) -> Any:
        for source in sources:
            if len(self.read) == self.stop:
                raise KeyboardInterrupt
            self.read.append(source)
            yield [Translation(f"<{source}>", 0.0)]


def lines(text: str, form: str = "text") -> list[Any]:
    return list(read_lines(io.BytesIO(text.encode()), "input", form))


def test_an_empty_line_ends_a_document():
    translator = Echo(2)
    written = "".join(text for _, text in translate_lines(translator, lines(TEXT), DecodingSettings(), name="input"))
    assert translator.read == READ
    assert written == "".join(f"<{text}>\n" for text in READ)  # a line for each line
    alone = Echo(0)
    list(translate_lines(alone, lines(TEXT), DecodingSettings(), name="input"))
    assert alone.read == TEXT.split("\n")[:-1]


def test_rows_of_another_article_or_language_see_nothing():
    rows = [("a", "de", "eins"), ("a", "de", "zwei"), ("b", "de", "drei"), ("b", "fr", "vier"), ("b", "fr", "acht")]
    keys = ("article", "source_language", "source")
    text = "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    found = with_context(lines(text, "jsonl"), 3)
    assert [line.before for line in found] == ["", "eins ||| ", "", "", "vier ||| "]


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_file_goes_on_with_the_sentences_before(tmp_path, stop):
    path, output = Path(tmp_path / "in.txt"), Path(tmp_path / "out.txt")
    path.write_text(TEXT, encoding="utf-8")
    settings = DecodingSettings(window_size=2)

    def run(translator: Echo) -> None:
        facts = {"decoding": settings.model_dump(), "input": Input(path).described}
        with open_output(Input(path), output, facts) as partial:
            translate_file(translator, Input(path), partial, settings)

    with pytest.raises(KeyboardInterrupt):
        run(Echo(2, stop))
    run(last := Echo(2))
    assert output.read_text(encoding="utf-8") == "".join(f"<{text}>\n" for text in READ)
    assert last.read == READ[stop // 2 * 2 :]


def test_the_oldest_sentences_go_first():
    def tokenizer(texts: list[str], verbose: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1] * len(text.split()) for text in texts]}

    texts = ["a b ||| c ||| d", "a ||| b", "a b c d e f"]
    assert shortened(texts, "", tokenizer, 4) == ["c ||| d", "a ||| b", "a b c d e f"]
    assert shortened(texts, "to en: ", tokenizer, 5) == ["c ||| d", "a ||| b", "a b c d e f"]
    assert shortened(texts, "", tokenizer, None) == texts


def test_the_number_is_that_of_the_configuration():
    assert sentences_read(Echo(3)) == 3 and sentences_read(object()) == 0
    assert sentences_read(SimpleNamespace(config=SimpleNamespace())) == 0
