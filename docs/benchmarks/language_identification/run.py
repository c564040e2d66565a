"""Which library tells the language of short texts best, and at what cost.

    python docs/benchmarks/language_identification/run.py measure --multi30k FOLDER --korean FILE.tsv
    python docs/benchmarks/language_identification/run.py page

FOLDER holds `train.<language>.gz` of Multi30k; FILE.tsv has Korean in its second column. Needs
`lingua-language-detector` beside the extra `language`. From each language 2,000 sentences are drawn, or as many as
there are, and cut to 1 to 3 or 4 to 8 words; those of 9 words or more are taken whole.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

from hf_nmt.benchmarking import keep_result, where_measured
from hf_nmt.language import identify

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
LANGUAGES = ("ko", "en", "de", "fr", "cs")
LENGTHS = {"1-3": (1, 3), "4-8": (4, 8), "9+": (9, None)}
TEXTS = 2000
Detect = Callable[[list[str]], list[str | None]]


def detectors() -> dict[str, Detect]:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    def lingua(builder: LanguageDetectorBuilder) -> Detect:
        detector = builder.build()

        def detect(texts: list[str]) -> list[str | None]:
            found = [detector.detect_language_of(text) for text in texts]
            return [language and language.iso_code_639_1.name.lower() for language in found]

        return detect

    five = LanguageDetectorBuilder.from_iso_codes_639_1(*(getattr(IsoCode639_1, code.upper()) for code in LANGUAGES))
    return {
        "py3langid, 142 languages": lambda texts: [code for code, _ in identify(texts)],
        "py3langid, the five": lambda texts: [code for code, _ in identify(texts, LANGUAGES)],
        "lingua, 75 languages, low accuracy mode": lingua(
            LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode()
        ),
        "lingua, the five": lingua(five),
        "lingua, 75 languages": lingua(LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models()),
    }


def sentences(multi30k: Path, korean: Path) -> dict[str, list[str]]:
    found = {"ko": [line.split("\t")[1] for line in korean.read_text(encoding="utf-8").splitlines()]}
    for language in LANGUAGES[1:]:
        with gzip.open(multi30k / f"train.{language}.gz", "rt", encoding="utf-8") as file:
            found[language] = file.read().splitlines()
    return found


def cut(lines: list[str], length: str) -> list[str]:
    shortest, longest = LENGTHS[length]
    chance = random.Random(length)
    words = [line.split() for line in lines]
    words = [line for line in words if len(line) >= shortest]
    drawn = chance.sample(words, min(TEXTS, len(words)))
    return [" ".join(line[: chance.randint(shortest, longest)] if longest else line) for line in drawn]


def measure(multi30k: Path, korean: Path) -> None:
    lines = sentences(multi30k, korean)
    texts = {(language, length): cut(lines[language], length) for language in LANGUAGES for length in LENGTHS}
    done = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name, detect in detectors().items():
        if name in done:
            continue
        detect(["warm up"])
        cells = {}
        for (language, length), drawn in texts.items():
            start = time.process_time()
            found = detect(drawn)
            seconds = time.process_time() - start
            cells[f"{language} {length}"] = {
                "texts": len(drawn),
                "right": found.count(language),
                "undecided": found.count(None),
                "microseconds": round(1e6 * seconds / len(drawn), 1),
            }
        keep_result(RESULTS, name, {"cells": cells})


def page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    processors, versions = where_measured(results.values())
    lines = [
        "# Telling languages",
        "",
        "Made by `run.py` from `results.json`. Share of texts whose language is told rightly, by length in words,",
        "and processor time of a text on one thread; Multi30k, and Korean of Tatoeba.",
        "",
    ]
    for length in LENGTHS:
        lines += [
            f"## {length} words", "",
            f"| | {' | '.join(LANGUAGES)} | microseconds |", "|---|" + "---|" * (len(LANGUAGES) + 1),
        ]  # fmt: skip
        for name, result in results.items():
            cells = [result["cells"][f"{language} {length}"] for language in LANGUAGES]
            shares = " | ".join(f"{cell['right'] / cell['texts']:.1%}" for cell in cells)
            cost = sum(cell["microseconds"] * cell["texts"] for cell in cells) / sum(cell["texts"] for cell in cells)
            lines.append(f"| {name} | {shares} | {cost:.0f} |")
        lines.append("")
    lines += [
        "The step `language` of [preparing](../../guide/preparing.md) must choose among",
        "all languages: there py3langid is taken, and texts below 20 letters are left alone. Among two languages",
        "(swapped sides) it is right on nearly all.",
        "",
        f"{processors}; {versions}.",
        "",
    ]
    (HERE / "README.md").write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measured = commands.add_parser("measure")
    measured.add_argument("--multi30k", type=Path, required=True)
    measured.add_argument("--korean", type=Path, required=True)
    commands.add_parser("page")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        measure(arguments.multi30k, arguments.korean)
    else:
        page()


if __name__ == "__main__":
    main()
