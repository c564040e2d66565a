"""Score a translation model, or an existing translation, on a test set.

    python recipes/validate.py model=runs/<id>/best data.test.source=test.de data.test.target=test.en
    python recipes/validate.py translations=out.en data.target_language=en data.test.path=test.tsv
    python recipes/validate.py --config quickstart model=runs/<id>/best

Several references: data.test.target=[a.en,b.en]. Several language pairs: data.pairs.de-en.test.source=FILE and so on,
or rows with columns source_language and target_language; the mean over the pairs is shown, then each. With
baseline=MODEL or baseline=FILE a paired significance test tells whether the difference may be chance. The table of
scores goes to stdout; predictions/<model>/<time>/ keeps the translations, segment scores, score records and settings.

Older papers give BLEU on lower-cased, Moses-tokenised text. To compare with them (pip install "hf_nmt[moses]"), score
against references prepared that way with: metrics.lowercase=true metrics.pretokenize=predictions
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from pydantic import Field

from hf_nmt.config import Settings, dump, from_command_line, launch
from hf_nmt.errors import ConfigError, NmtError
from hf_nmt.evaluation import corpora, folders, scores, systems
from hf_nmt.generation.decoding import of_the_model
from hf_nmt.metrics import ComparisonSettings, comparison_table, score_table

logger = logging.getLogger("hf_nmt.recipes.validate")


class ValidateRecipe(Settings):
    model: str | None = Field(None, description="Model to score: folder such as runs/<id>/best, or id of the Hub.")
    translations: str | None = Field(
        None, description="File with one translation a line to score in place of a model; of any system."
    )
    baseline: str | None = Field(
        None, description="Model folder or file of translations to compare with in a paired significance test."
    )
    data: corpora.EvaluationData = Field(corpora.EvaluationData(), description="Test set and languages.")
    decoding: systems.CorpusDecodingSettings | None = Field(
        None,
        description="How to translate. null, and every key left out, takes the model's own generation_config.json.",
        json_schema_extra=of_the_model(),
    )
    metrics: ComparisonSettings = Field(ComparisonSettings(), description="Scores and how they are computed.")
    per_domain: bool = Field(False, description="Score each domain as well; the test set needs a column domain.")
    num_samples: int = Field(5, ge=0, description="Segments to show on stderr, spread evenly over the test set.")
    device: str | None = Field(None, description="Such as cpu or cuda:0; null takes a GPU where there is one.")
    output_dir: str = Field("predictions", description="Where <name>/<time>/ is written.")
    name: str | None = Field(None, description="Folder in output_dir; null makes it from the path of the model.")

    def check_files(self) -> list[str]:
        try:
            find_systems(self)
        except ConfigError as error:
            return error.findings
        return []


def missing(settings: ValidateRecipe) -> list[str]:
    """What must be given in addition, or left out."""
    findings = []
    if (settings.model is None) == (settings.translations is None):
        findings.append("model: give model=FOLDER (such as runs/<id>/best) or translations=FILE, and not both.")
    if settings.translations is not None and settings.decoding is not None and settings.baseline is None:
        findings.append("decoding: it has no effect on translations=FILE; leave it out.")
    if settings.decoding is not None and settings.decoding.num_return_sequences > 1:
        findings.append("decoding.num_return_sequences: only the best translation is scored; leave it out.")
    if settings.baseline is None:
        findings += settings.metrics.idle_without_baseline()
    if settings.data.test is None and not settings.data.pairs:
        findings.append(
            "data.test: no test set is given. Give data.test.source=FILE data.test.target=FILE, data.test.path=FILE, "
            "for several language pairs data.pairs.de-en.test.source=FILE and so on, or for the built-in corpus "
            "data.test.path=controlled/tiny data.test.split=test."
        )
    return findings


def find_systems(settings: ValidateRecipe) -> list[str]:
    """The system and the baseline, as paths or ids of the Hub; raises ConfigError with all that is missing."""
    findings, found = [], []
    for kind in ("model", "translations", "baseline"):
        if (path := getattr(settings, kind)) is not None:
            try:
                found.append(systems.find_system(path, kind))
            except NmtError as error:
                findings.append(f"{kind}: {error}")
    if len(found) == 2 and found[0] == found[1]:
        findings.append(f"baseline={settings.baseline}: this is the system itself; name another one.")
    if findings := findings + missing(settings):
        raise ConfigError(findings)
    return found


def main(argv: list[str]) -> int:
    settings = from_command_line(ValidateRecipe, argv, recipe="validate", doc=__doc__, positional="model")
    paths = find_systems(settings)
    given = settings.data.source_language, settings.data.target_language
    corpus = corpora.load_corpus(settings.data, systems.usual_languages(paths, given))
    for path in paths:
        systems.check_languages(path, corpus.pairs)
    metrics = scores.checked(corpus, settings.metrics, per_domain=settings.per_domain)

    # Files first: a wrong number of lines is told before anything is translated.
    outputs = {path: systems.read_system(path, corpus) for path in paths if Path(path).is_file()}
    for path in paths:
        if path not in outputs:
            outputs[path] = systems.run_model(path, corpus, settings.decoding, device=settings.device)
    system, *baseline = (outputs[path] for path in paths)
    scores.warn_if_like_source(corpus, system)

    evaluation = scores.evaluate(corpus, system, metrics, per_domain=settings.per_domain)
    comparisons = scores.compare_with(*baseline, system, corpus, metrics) if baseline else []
    folder = folders.new_folder(settings.output_dir, settings.name or systems.system_name(paths[0]))
    if system.facts.decoding is not None:
        settings.decoding = systems.CorpusDecodingSettings(**system.facts.decoding)
    facts = settings.model_dump(include={"model", "translations", "baseline"})
    folders.write_evaluation(
        folder, corpus, system, evaluation, settings_yaml=dump(settings), facts=facts, comparisons=comparisons
    )
    for line in [*folders.sample_lines(corpus, system, settings.num_samples), f"Written to {folder}"]:
        logger.info(line)

    sys.stdout.write(score_table(evaluation.scores, confidence=settings.metrics.confidence) + "\n")
    if comparisons:
        sys.stdout.write("\n" + comparison_table(comparisons) + "\n")
    return 0


SETTINGS = ValidateRecipe

if __name__ == "__main__":
    launch(main)
