"""A small corpus of difficult characters, and writers of files for the tests of readers and sources."""

from __future__ import annotations

import gzip
from pathlib import Path

import datasets

from hf_nmt.data.sources import CorpusSettings, load_pairs

# Characters that Python's text mode, str.splitlines, CSV, XML or JSON treat specially.
PAIRS = [
    ("Ein Hund rennt.", "A dog runs."),
    ('Er sagt: "Ja, gern!"', 'He says: "Yes, gladly!"'),
    ("Zeile\u2028getrennt\u0085noch eine", "Line\u2028separated\u0085one more"),
    ("A & B < C > D; C:\\n", "<s> &amp; </s>, it's"),
    ("  Rand ", " edge  "),
    ("나는 학교에 간다.", "I go to school. \N{GRINNING FACE}"),
    ("e\N{COMBINING ACUTE ACCENT}té", "summer\N{ZERO WIDTH SPACE}"),
]
SOURCES, TARGETS = (list(side) for side in zip(*PAIRS, strict=True))


def write(path: Path, text: str | bytes) -> str:
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def lines(texts, end="\n"):
    return "".join(text + end for text in texts)


def load_from(tmp_path, *, source_language="de", target_language="en", **settings):
    return load_pairs(
        CorpusSettings(**settings),
        source_language=source_language,
        target_language=target_language,
        cache_dir=tmp_path / "cache",
    )


def rows_of(dataset):
    return [(row["source"], row["target"]) for row in dataset]


# Files: each function writes PAIRS and returns the settings that read them back


def two_files(folder, source="train.de", target="train.en", **text):
    return {
        "source": write(folder / source, lines(SOURCES, **text)),
        "target": write(folder / target, lines(TARGETS, **text)),
    }


def tsv(folder):
    return {"path": write(folder / "c.tsv", lines(map("\t".join, PAIRS))), "source_column": "1", "target_column": "2"}


def saved_dataset(folder):
    datasets.Dataset.from_dict({"de": SOURCES, "en": TARGETS}).save_to_disk(folder / "saved")
    return {"path": str(folder / "saved")}


def saved_dataset_dict(folder):
    features = datasets.Features({"translation": datasets.Translation(languages=["de", "en"])})
    rows = datasets.Dataset.from_list([{"translation": {"de": s, "en": t}} for s, t in PAIRS], features=features)
    datasets.DatasetDict({"train": rows.select([0]), "test": rows}).save_to_disk(folder / "saved")
    return {"path": str(folder / "saved"), "split": "test"}
