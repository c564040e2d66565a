"""Make training pairs of text in the target language: a model of the other direction translates it back.

    python recipes/backtranslate.py model=runs/<en-de>/best input=mono.en source_language=de target_language=en \\
        output=synthetic.jsonl
    python recipes/backtranslate.py --config sampling model=... input=... output=... tag='<BT>'

source_language and target_language are those of the pairs that are made, so of the model that will be trained on them:
the sources are synthetic, the targets are the lines of input. Each line of the output is a record with synthetic:
backtranslation, which recipes/prepare_data.py and recipes/train.py read like any other. Lines without text are left
out. <output>.json tells the settings, hashes and counts.

The output grows as <output>.partial until it is whole. If it is interrupted or killed, the same command goes on after
the last lines that were written. Texts are the same for any size of batches, but for what rounding does to near ties.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt import artifacts
from hf_nmt.config import Settings, fingerprint, from_command_line, launch
from hf_nmt.generation import backtranslation, inputs
from hf_nmt.generation.decoding import DecodingSettings, model_decoding, of_the_model
from hf_nmt.generation.meter import Meter
from hf_nmt.language import LanguageCode
from hf_nmt.models.sources_nmt import Languages
from hf_nmt.translators import SavedModel, find_model, load_translator, problems_of_translation

logger = logging.getLogger("hf_nmt.recipes.backtranslate")


class BacktranslateRecipe(Settings):
    model: str = Field(
        description="Folder of a model from target_language to source_language, a run folder, or an id of the Hub."
    )
    input: str = Field(
        description="File of UTF-8 text in target_language, one sentence a line, plain or .gz; it becomes the targets."
    )
    output: str = Field(description="File of records to write: .jsonl or .jsonl.gz.")
    source_language: LanguageCode = Field(description="Code of the sources of the records: what the model writes.")
    target_language: LanguageCode = Field(description="Code of the targets of the records: what the input is in.")
    tag: str | None = Field(
        None,
        pattern=r"^\S+$",
        description="Word in front of each source, such as <BT>: it tells the model that is trained on the records "
        "which sources are synthetic (Caswell et al. 2019), and is left out when that model translates. In angle "
        "brackets it is one token of a tokenizer that train.py trains. null: none.",
    )
    domain: str | None = Field(None, description="Domain of the records, such as news.")
    origin: str | None = Field(
        None, description="Corpus that the records belong to; null takes the name of the input."
    )
    licence: str | None = Field(None, description="Terms of use of the text, such as CC-BY-4.0.")
    decoding: DecodingSettings | None = Field(
        None,
        description="How to translate. null, and every key left out, takes the model's own generation_config.json; "
        "sampling (do_sample=true) takes num_beams=1.",
        json_schema_extra=of_the_model(),
    )
    device: str | None = Field(None, description="Such as cpu or cuda:0; null takes a GPU where there is one.")
    overwrite: bool = Field(False, description="Replace the output, and what was begun of it otherwise.")

    def check_files(self) -> list[str]:
        findings = backtranslation.problems_of_names(self.input, self.output)
        return findings + problems_of_translation(self.model, self.input, self.output, overwrite=self.overwrite)


SETTINGS = BacktranslateRecipe


def main(argv: list[str]) -> int:
    from hf_nmt.generation import files, hub

    settings = from_command_line(BacktranslateRecipe, argv, recipe="backtranslate", doc=__doc__, positional="model")
    folder = find_model(settings.model)
    given = settings.decoding
    if given is not None and given.do_sample and "num_beams" not in given.model_fields_set:
        given = DecodingSettings(**given.model_dump(include=given.model_fields_set), num_beams=1)
    decoding = model_decoding(folder, given)
    languages = {"source_language": settings.source_language, "target_language": settings.target_language}
    if artifacts.may_be_hub_id(folder) or (Path(folder) / "config.json").is_file():  # not an adapter
        saved = SavedModel.find(folder)
        known = Languages.of(saved.config(), saved.tokenizer())
        backtranslation.refuse_wrong_direction(known, settings.model, **languages)
    source = inputs.Input(Path(settings.input), "text")
    backtranslation.check_text(source)

    about = {"domain": settings.domain, "licence": settings.licence, "synthetic": backtranslation.SYNTHETIC}
    about |= {"origin": settings.origin or Path(settings.input).name, **languages}
    model = fingerprint(artifacts.hash_model(folder)) if Path(folder).is_dir() else folder
    facts = {"model": model, "input": source.described, "records": about, "tag": settings.tag}
    facts["decoding"] = decoding.model_dump(mode="json")
    output = Path(settings.output)
    try:
        with files.open_output(source, output, facts, overwrite=settings.overwrite) as partial:
            translator = load_translator(
                folder, settings.device, with_scores=False,
                source_language=settings.target_language, target_language=settings.source_language,
            )  # fmt: skip
            revision = hub.revision(folder)
            partial.confirm(revision=revision)
            with Meter(source.num_lines, "lines", "translating back", done=partial.progress.num_lines) as meter:
                progress = files.translate_file(
                    translator, source, partial, decoding,
                    rendered=backtranslation.renderer(about, settings.tag), tell=meter.at,
                )  # fmt: skip
            files.write_record(output, facts, progress, settings.model, revision)
    except KeyboardInterrupt:
        logger.info("Stopped. The same command goes on where it stopped.")
        raise
    logger.info(translator.statistics.summary())
    sys.stdout.write(f"{output}\n")
    return 0


if __name__ == "__main__":
    launch(main)
