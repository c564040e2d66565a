"""Cases of corpora, and of the recipes that make them; see cases.py."""

from __future__ import annotations

from settings_walk.keys import NAME, Case


def below(
    section: str, cases: dict[str, Case], *, context: tuple[str, ...] = (), stage: str = "all"
) -> dict[str, Case]:
    """Cases of a section's keys: all with this context before their own, and this stage."""
    return {
        f"{section}.{key}": Case(case.changed, case.sees, (*context, *case.context), stage)
        for key, case in cases.items()
    }


def corpus_cases(section: str, name: str, sees: str, stage: str, context: tuple[str, ...] = ()) -> dict[str, Case]:
    """Keys of a `CorpusSettings`.

    Args:
        section: where it stands.
        name: of the files in `inputs`; those of `other_<name>` hold other texts.
        sees: where its texts show.
    """

    def path(file: str, *more: str) -> tuple[str, ...]:
        none = [f"{section}.{side}=null" for side in ("source", "target")]
        return (*none, f"{section}.path=inputs/{file}", *(f"{section}.{setting}" for setting in more))

    def two_files(file: str) -> tuple[str, ...]:
        return (f"{section}.source=inputs/{file}.de", f"{section}.target=inputs/{file}.en")

    sides, holes = two_files(name), two_files(f"{name}_holes")
    hub = path("hub", "format=hub", "split=train")
    columns = path(f"{name}_columns.jsonl", "source_column=calm", "target_column=quiet")
    cases = {
        "source": Case(f"inputs/other_{name}.de", sees, sides),
        "target": Case(f"inputs/other_{name}.en", sees, sides),
        "path": Case(f"inputs/other_{name}.jsonl", sees, path(f"{name}.jsonl")),
        "format": Case("csv", sees, path(f"{name}_both.tsv", "source_column=1", "target_column=2")),
        "subset": Case("two", sees, (*hub, f"{section}.subset=one")),
        "split": Case("test", sees, path("splits", "split=train")),
        "source_column": Case("loud", sees, columns),
        "target_column": Case("shout", sees, columns),
        "empty": Case("drop", sees, holes),
        "max_rows": Case("5", sees, sides),
    }
    return below(section, cases, context=context, stage=stage)


KEPT, REJECTED = "train-00000-of-00001.parquet", "rejects.parquet"

# Copies of all records, at a share that lets them in.
AUGMENTED = ("augment.max_synthetic_share=0.9",)
NOISY = (*AUGMENTED, "augment.noise.case=0.5")
OTHER_WORDS = (*AUGMENTED, "augment.synonyms.lexicon=inputs/words.tsv")

IN_VERSION = "files/processed_data/v"
# The training text itself as an evaluation set.
LEAKED = (f"leakage.sets.{NAME}.path=inputs/raw.jsonl",)
LISTED = (*LEAKED, f"leakage.sets.{NAME}.max_pairs=null")
# Lines, some of which stand beside the translation of the next.
SHIFTED = (
    f"inputs.{NAME}.path=inputs/shifted.tsv",
    f"inputs.{NAME}.source_column=1",
    f"inputs.{NAME}.target_column=2",
)

ARTICLES = (f"inputs.{NAME}.path=inputs/articles.jsonl",)
IN_VALIDATION = "validation-00000-of-00001.parquet"


def drawn(*given: str) -> tuple[str, ...]:
    """Articles, of which a validation set is drawn by these settings of it."""
    return (*ARTICLES, *(f"splits.sets.validation.{setting}" for setting in given))


NEAR = (*drawn("share=0.3"), "splits.near.threshold=0.5")
# The set shares a whole pair, or one side, with what is left to train on.
APART = (*drawn("include=[a00]"), "splits.tie_articles=false")
ONE_SIDED = (*drawn("include=[a02]"), "splits.tie_articles=false", "leakage.similarity.threshold=0.5")
SPLITS = {
    "splits.sets.<name>.share": Case("0.5", IN_VALIDATION, drawn("share=0.2"), name="validation"),
    "splits.sets.<name>.count": Case("20", IN_VALIDATION, drawn("count=8"), name="validation"),
    "splits.sets.<name>.per_domain": Case("16", IN_VALIDATION, drawn("per_domain=8"), name="validation"),
    "splits.sets.<name>.domains": Case("[law]", IN_VALIDATION, drawn("domains=[news]"), name="validation"),
    "splits.sets.<name>.include": Case("[a05]", IN_VALIDATION, drawn("include=[a04]"), name="validation"),
    "splits.sets.<name>.exclude": Case(
        "[a04,a05,a06,a07,a08,a09]", IN_VALIDATION, drawn("count=20"), name="validation"
    ),
    "splits.seed": Case("2", IN_VALIDATION, drawn("share=0.3")),
    "splits.bins": Case("1", IN_VERSION, drawn("share=0.3")),
    "splits.fold": Case("[]", IN_VALIDATION, drawn("share=0.3")),
    "splits.tie_articles": Case("false", IN_VERSION, drawn("share=0.3")),
    "splits.near.shingles": Case("words", IN_VERSION, NEAR),
    "splits.near.size": Case("2", IN_VERSION, NEAR),
    "splits.near.threshold": Case("0.9", IN_VERSION, NEAR),
    "splits.coherence.side": Case("target", IN_VERSION, drawn("share=0.3")),
    "splits.coherence.ngram": Case("2", IN_VERSION, drawn("share=0.3")),
    "splits.coherence.encoder": Case("inputs/nowhere", "refusal", drawn("share=0.3")),
    "leakage.splits.max_pairs": Case("1", KEPT, APART),
    "leakage.splits.max_one_sided": Case("0", "refusal", ONE_SIDED),
    "leakage.splits.max_near": Case("0", "refusal", ONE_SIDED),
}
CAPTIONS = tuple(setting.replace("shifted", "captions") for setting in SHIFTED)

PREPARE_DATA = {
    **SPLITS,
    **{
        key.replace(NAME, "<name>"): case
        for key, case in corpus_cases(f"leakage.sets.{NAME}", "test", IN_VERSION, "all").items()
        if not key.endswith(".empty")
    },
    "leakage.sets.<name>.max_pairs": Case("1", KEPT, LEAKED),
    "leakage.sets.<name>.max_one_sided": Case("0", "refusal", LISTED),
    "leakage.sets.<name>.max_near": Case("0", "refusal", (*LISTED, "leakage.similarity.threshold=0.5")),
    "leakage.on_leak": Case("drop", REJECTED, LEAKED),
    "leakage.fold": Case("[]", IN_VERSION, LISTED),
    "leakage.similarity.shingles": Case("words", IN_VERSION, (*LISTED, "leakage.similarity.threshold=0.5")),
    "leakage.similarity.size": Case("12", IN_VERSION, (*LISTED, "leakage.similarity.threshold=0.5")),
    "leakage.similarity.threshold": Case("0.5", IN_VERSION, LISTED),
    "augment.noise.copies": Case("3", KEPT, NOISY),
    "augment.noise.drop": Case("0.5", KEPT, NOISY),
    "augment.noise.swap": Case("1", KEPT, NOISY),
    "augment.noise.swap_window": Case("1", KEPT, (*NOISY, "augment.noise.swap=1")),
    "augment.noise.typo": Case("0.5", KEPT, NOISY),
    "augment.noise.case": Case("1", KEPT, NOISY),
    "augment.noise.punctuation": Case("1", KEPT, NOISY),
    "augment.synonyms.lexicon": Case("inputs/other_words.tsv", KEPT, OTHER_WORDS),
    "augment.synonyms.copies": Case("5", KEPT, (*OTHER_WORDS, "augment.synonyms.probability=0.5")),
    "augment.synonyms.probability": Case("1", KEPT, (*OTHER_WORDS, "augment.synonyms.probability=0.01")),
    "augment.max_synthetic_share": Case("0.1", KEPT, NOISY),
    "augment.seed": Case("1", KEPT, NOISY),
    "source_language": Case("nl", KEPT),
    "target_language": Case("nl", KEPT),
    "output_dir": Case("elsewhere", "files/elsewhere/v"),
    "work_dir": Case("elsewhere", "files/elsewhere/0"),
    "raw_dir": Case("kept", "files/kept/"),
    "num_workers": Case("2", "workers"),
    "engine": Case("ray", "ray"),
    "ray_address": Case("auto", "ray", ("engine=ray", "num_workers=null")),
    "explain": Case("24d9a1f0d6b66f67bdae29893ac4d08d", "stdout"),
    "inputs.<name>.source_language": Case("nl", KEPT),
    "inputs.<name>.target_language": Case("nl", KEPT),
    "inputs.<name>.domain": Case("news", KEPT),
    "inputs.<name>.licence": Case("CC0-1.0", KEPT),
    "inputs.<name>.synthetic": Case("noise", KEPT),
    **{
        key.replace(NAME, "<name>"): case
        for key, case in corpus_cases(f"inputs.{NAME}", "test", KEPT, "all", (f"inputs.{NAME}.path=null",)).items()
        if not key.endswith(".empty")
    },
    "steps[].empty.copies": Case("false", REJECTED),
    "steps[].lengths.min_characters": Case("5", REJECTED),
    "steps[].lengths.max_characters": Case("30", REJECTED),
    "steps[].lengths.min_words": Case("3", REJECTED),
    "steps[].lengths.max_words": Case("6", REJECTED),
    "steps[].normalise.form": Case("NFKC", KEPT),
    "steps[].normalise.entities": Case("false", KEPT),
    "steps[].normalise.punctuation": Case("plain", KEPT),
    "steps[].script.min_share": Case("0.9", REJECTED),
    "steps[].language.min_probability": Case("0.01", REJECTED, beside="min_letters: 3"),
    "steps[].language.min_letters": Case("200", REJECTED),
    "steps[].ratio.max_characters": Case("9", REJECTED, beside="max_words: 99"),
    "steps[].ratio.max_words": Case("9", REJECTED, beside="max_characters: 99"),
    "steps[].ratio.spare_characters": Case("0", REJECTED, beside="max_words: 99"),
    "steps[].ratio.tokenizer": Case("inputs/model", REJECTED, beside="max_tokens: 1.1, max_characters: 99"),
    "steps[].ratio.max_tokens": Case(
        "9", REJECTED, beside="tokenizer: inputs/model, max_characters: 99, max_words: 99"
    ),
    "steps[].endings.min_ratio": Case("9", REJECTED),
    "steps[].endings.min_precision": Case("0", REJECTED, CAPTIONS, beside="min_ratio: 1"),
    "steps[].long_words.max_characters": Case("5", REJECTED),
    "steps[].exact_duplicates.by": Case("source", REJECTED),
    "steps[].exact_duplicates.fold": Case("[]", REJECTED),
    "steps[].core_set.size": Case("5", REJECTED),
    "steps[].core_set.by": Case("[]", REJECTED, beside="size: 5"),
    "steps[].core_set.length_bins": Case("1", REJECTED, beside="size: 5"),
    "steps[].core_set.seed": Case("1", REJECTED, beside="size: 5"),
    "steps[].near_duplicates.shingles": Case("words", REJECTED, beside="threshold: 0.5"),
    "steps[].near_duplicates.size": Case("12", REJECTED, beside="threshold: 0.5"),
    "steps[].near_duplicates.threshold": Case("0.3", REJECTED),
    "steps[].alignment.max_chance": Case("0.9", REJECTED, SHIFTED, beside="min_pairs: 100, min_precision: 0"),
    "steps[].alignment.min_precision": Case("0", REJECTED, SHIFTED, beside="min_pairs: 100, max_chance: 0.001"),
    "steps[].alignment.sample_pairs": Case("200", REJECTED, SHIFTED, beside="min_pairs: 100"),
    "steps[].alignment.vocabulary": Case("10", REJECTED, SHIFTED, beside="min_pairs: 100"),
    "steps[].alignment.iterations": Case("1", REJECTED, SHIFTED, beside="min_pairs: 100"),
    "steps[].alignment.min_pairs": Case("100", REJECTED, SHIFTED),
    **{
        f"steps[].perplexity.{key}": case
        for key, case in {
            "side": Case("source", REJECTED, CAPTIONS, beside="keep: 0.9"),
            "keep": Case("0.5", REJECTED, CAPTIONS, beside="max_perplexity: 1e9"),
            "max_perplexity": Case("3", REJECTED, CAPTIONS, beside="keep: 1"),
            "order": Case("1", REJECTED, CAPTIONS, beside="keep: 0.9"),
            "sample_sentences": Case("20", REJECTED, CAPTIONS, beside="keep: 0.9"),
            "text": Case("inputs/calm.en", REJECTED, CAPTIONS, beside="keep: 0.9"),
            "model": Case("inputs/causal", REJECTED, CAPTIONS, beside="keep: 0.9"),
        }.items()
    },
    **{
        f"steps[].cross_entropy_difference.{key}": Case(
            value, REJECTED, CAPTIONS, beside=f"in_domain: inputs/talk.en{more}"
        )
        for key, value, more in (
            ("side", "source", ""),
            ("keep", "0.5", ", max_difference: 9"),
            ("max_difference", "-1", ""),
            ("order", "1", ""),
            ("sample_sentences", "20", ""),
        )
    },
    "steps[].cross_entropy_difference.in_domain": Case(
        "inputs/calm.en", REJECTED, CAPTIONS, beside="in_domain: inputs/talk.en"
    ),
    **{
        f"steps[].dual_cross_entropy.{key}": Case(
            value, REJECTED, CAPTIONS, beside=f"forward: inputs/model, backward: inputs/backward, {more}"
        )
        for key, value, more in (
            ("forward", "inputs/other_forward", "keep: 0.5"),
            ("backward", "inputs/other_backward", "keep: 0.5"),
            ("keep", "0.5", "keep: 0.9"),
            ("max_cross_entropy", "1", "keep: 1"),
        )
    },
    **{
        f"steps[].similarity.{key}": Case(value, REJECTED, CAPTIONS, beside=f"encoder: inputs/encoder, {more}")
        for key, value, more in (
            ("encoder", "inputs/other_encoder", "keep: 0.5"),
            ("keep", "0.5", "keep: 0.9"),
            ("min_similarity", "0.99999", "keep: 1"),
        )
    },
}

CHECKED = "files/checked/check.json"
# Fewer pairs than it takes by default, of which some have the targets of others.
OF_SHIFTED = ("version=inputs/shifted", "only=[alignment]", "alignment.words.min_pairs=100")
OF_WORDS = ("tokens.max_length=3",)

CHECK_DATA = {
    "only": Case("[schema]", CHECKED),
    "version": Case("inputs/other_checked", CHECKED),
    "output_dir": Case("elsewhere", "files/elsewhere/check.json"),
    "num_workers": Case("2", "workers"),
    "samples": Case("1", CHECKED),
    "records.max_invalid": Case("0", "refusal"),
    "language.max_wrong": Case("0", "refusal"),
    "language.min_probability": Case("0.01", CHECKED, ("language.min_letters=3",)),
    "language.min_letters": Case("200", CHECKED),
    "alignment.max_outliers": Case("0", "refusal"),
    "alignment.max_characters": Case("9", CHECKED, ("alignment.max_words=99",)),
    "alignment.max_words": Case("9", CHECKED, ("alignment.max_characters=99",)),
    "alignment.spare_characters": Case("0", CHECKED, ("alignment.max_words=99",)),
    "alignment.tokenizer": Case("inputs/model", CHECKED, ("alignment.max_tokens=1.1", "alignment.max_characters=99")),
    "alignment.max_tokens": Case(
        "9",
        CHECKED,
        ("alignment.tokenizer=inputs/model", "alignment.max_characters=99", "alignment.max_words=99"),
    ),
    "alignment.max_misaligned": Case("0", "refusal", OF_SHIFTED),
    "alignment.words.max_chance": Case("0.9", CHECKED, (*OF_SHIFTED, "alignment.words.min_precision=0")),
    "alignment.words.min_precision": Case("0", CHECKED, (*OF_SHIFTED, "alignment.words.max_chance=0.001")),
    "alignment.words.sample_pairs": Case("200", CHECKED, OF_SHIFTED),
    "alignment.words.vocabulary": Case("10", CHECKED, OF_SHIFTED),
    "alignment.words.iterations": Case("1", CHECKED, OF_SHIFTED),
    "alignment.words.min_pairs": Case("100", CHECKED, OF_SHIFTED[:2]),
    "duplicates.max_exact": Case("0", "refusal"),
    "duplicates.max_near": Case("0", "refusal", ("duplicates.similarity.threshold=0.5",)),
    "duplicates.max_across": Case("0", "refusal"),
    "duplicates.max_near_across": Case("0", "refusal", ("duplicates.similarity.threshold=0.5",)),
    "duplicates.fold": Case("[]", CHECKED),
    "duplicates.similarity.shingles": Case("words", CHECKED, ("duplicates.similarity.threshold=0.5",)),
    "duplicates.similarity.size": Case("12", CHECKED, ("duplicates.similarity.threshold=0.5",)),
    "duplicates.similarity.threshold": Case("0.3", CHECKED),
    # It has no token for some letters of the texts.
    "tokens.tokenizer": Case("inputs/model", "refusal"),
    "tokens.max_length": Case("3", CHECKED),
    "tokens.max_long": Case("0", "refusal", OF_WORDS),
    "tokens.max_unknown": Case("0", "refusal", ("tokens.tokenizer=inputs/model", "tokens.max_unknown=1")),
    "tokens.epsilon": Case("0.1", CHECKED),
    "tokens.delta": Case("0.1", CHECKED),
}
