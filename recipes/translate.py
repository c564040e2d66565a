"""Translate text with a saved model, a line at a time.

    python recipes/translate.py model=runs/<id>/best < in.de > out.en
    python recipes/translate.py model=runs/<id>/best target_language=fr input=in.en output=out.fr
    python recipes/translate.py model=runs/<id>/best output_format=jsonl decoding.num_return_sequences=5 < in.de

Every line of input gives one of output, empty ones too; a line of several sentences is translated sentence by
sentence (decoding.split_sentences=false: in one go), or after the lines before it where the model reads them. Target
languages of their own: a .jsonl file, {"source": "A dog.", "target_language": "de"} a line, or .tsv with a header.

Several translations per line come as `index TAB score TAB translation`, best first, the index counting lines from 0;
output_format=jsonl gives one object per line, with tokens and their log-probabilities.

An output file, plain or .gz, is written as <output>.partial until it is whole. If it is interrupted, the same command
goes on where it stopped. <output>.json records the settings, hashes and counts. Other files of these names are left
alone: the output is refused.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hf_nmt import artifacts
from hf_nmt.config import Settings, fingerprint, from_command_line, launch
from hf_nmt.generation import inputs
from hf_nmt.generation.decoding import DecodingSettings, model_decoding, of_the_model
from hf_nmt.generation.meter import Meter
from hf_nmt.language import LanguageCode
from hf_nmt.translators import find_model, load_translator, problems_of_translation

logger = logging.getLogger("hf_nmt.recipes.translate")


class TranslateRecipe(Settings):
    model: str | None = Field(
        None, description="Folder of a saved model, such as runs/<id>/best, a run folder, or an id of the Hub."
    )
    input: str | None = Field(None, description="File of UTF-8 text, plain or .gz; null reads the standard input.")
    input_format: inputs.InputFormat = Field(
        "auto",
        description="text: all of a line is translated; jsonl, tsv: the source of each row, whose source_language and "
        "target_language, where it names them, go before those of the run. auto: by the ending of the input's name.",
    )
    output: str | None = Field(None, description="File to write, plain or .gz; null writes to the standard output.")
    output_format: Literal["text", "jsonl"] = Field(
        "text", description="text: translations alone; jsonl: one object a line, with scores and tokens."
    )
    source_language: LanguageCode | None = Field(None, description="Code, for models of several source languages.")
    target_language: LanguageCode | None = Field(None, description="Code, for models of several target languages.")
    decoding: DecodingSettings | None = Field(
        None,
        description="How to translate. null, and every key left out, takes the model's own generation_config.json.",
        json_schema_extra=of_the_model(),
    )
    device: str | None = Field(None, description="Such as cpu or cuda:0; null takes a GPU where there is one.")
    overwrite: bool = Field(False, description="Replace the output, and what was begun of it otherwise.")

    def check_files(self) -> list[str]:
        return problems_of_translation(self.model, self.input, self.output, overwrite=self.overwrite)


SETTINGS = TranslateRecipe


def main(argv: list[str]) -> int:
    settings = from_command_line(TranslateRecipe, argv, recipe="translate", doc=__doc__, positional="model")
    folder = find_model(settings.model)
    settings.decoding = model_decoding(folder, settings.decoding)
    source = inputs.Input(settings.input and Path(settings.input), settings.input_format)
    languages = settings.model_dump(include={"source_language", "target_language"})
    with_scores = settings.output_format == "jsonl"
    load = functools.partial(load_translator, folder, settings.device, **languages, with_scores=with_scores)
    to_file = to_named_file if settings.output else to_standard_output
    logger.info(to_file(load, source, settings, folder).statistics.summary())
    return 0


def to_standard_output(load: Callable[[], Any], source: inputs.Input, settings: TranslateRecipe, _: str) -> Any:
    from hf_nmt.generation import files

    num_lines = source.num_lines
    translator = load()
    inputs.check_languages(translator, source)
    typed = source.path is None and sys.stdin.isatty()
    if typed:
        logger.info("Type a text and press Enter; Ctrl-D ends.")
    decoding = settings.decoding.model_copy(update={"window_size": 1} if typed else {})
    meter = None if typed else Meter(num_lines, "lines", "translating")
    with source.lines() as lines, meter or contextlib.nullcontext():
        for _, text in files.translate_lines(
            translator, lines, decoding, name=source.name, output_format=settings.output_format,
            tell=meter and meter.at,
        ):  # fmt: skip
            sys.stdout.buffer.write(text.encode())
            sys.stdout.buffer.flush()
    return translator


def to_named_file(load: Callable[[], Any], source: inputs.Input, settings: TranslateRecipe, folder: str) -> Any:
    """The input is read through and the output locked before the model loads, so that what is wrong is told soon."""
    from hf_nmt.generation import files, hub

    keys = {"source_language", "target_language", "output_format", "decoding"}
    model = fingerprint(artifacts.hash_model(folder)) if Path(folder).is_dir() else folder
    facts = {"model": model, "input": source.described, "input_format": source.format}
    facts |= settings.model_dump(include=keys, mode="json")
    output = Path(settings.output)
    try:
        with files.open_output(source, output, facts, overwrite=settings.overwrite) as partial:
            translator = load()
            inputs.check_languages(translator, source)
            revision = hub.revision(folder)
            partial.confirm(revision=revision)
            with Meter(source.num_lines, "lines", "translating", done=partial.progress.num_lines) as meter:
                progress = files.translate_file(
                    translator, source, partial, settings.decoding,
                    output_format=settings.output_format, tell=meter.at,
                )  # fmt: skip
            files.write_record(output, facts, progress, settings.model, revision)
    except KeyboardInterrupt:
        if source.path is not None:
            logger.info("Stopped. The same command goes on where it stopped.")
        raise
    return translator


if __name__ == "__main__":
    launch(main)
