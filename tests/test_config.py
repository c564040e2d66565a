"""Settings: what YAML and the command line mean, and the text of every refusal."""

from __future__ import annotations

import math
import os
import textwrap
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic
import pytest
import yaml
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import Field

from hf_nmt.config import Settings, continued, differences, dump, fingerprint, load
from hf_nmt.config_yaml import core_scalar
from hf_nmt.errors import ConfigError


class Corpus(Settings):
    source: str | list[str] | None = Field(None, description="File or files with the source side.")
    target: Path | None = Field(None, description="File with the target side.")
    max_rows: int | None = Field(None, ge=1, description="Rows at most; null reads all.")


class Data(Settings):
    source_language: str = Field("ko", description="ISO 639-1 code.")
    train: Corpus = Field(default_factory=Corpus, description="Text to learn from.")
    more: dict[str, Corpus] = Field(default_factory=dict, description="Further corpora by name.")
    parts: list[Corpus] = Field(default_factory=list, description="Further corpora.")


class Search(Settings):
    num_beams: int = Field(1, ge=1, description="Hypotheses kept.")
    length_penalty: float = Field(1.0, description="Exponent.")

    @pydantic.model_validator(mode="after")
    def _penalty_needs_beams(self) -> Search:
        if self.num_beams == 1 and self.length_penalty != 1.0:
            raise ValueError("length_penalty has no effect with num_beams=1. Set num_beams=2 or more.")
        return self


class Loop(Settings):
    renamed_keys: ClassVar[dict[str, str]] = {"warmup_ratio": "is now warmup_steps, where below 1 means a share."}
    learning_rate: float = Field(5e-4, gt=0, description="Peak.")
    bf16: bool = Field(False, description="Half precision.")
    warmup_steps: float = Field(0.0, description="Updates.")
    save_strategy: Literal["no", "steps", "epoch"] = Field("steps", description="When.")
    report_to: str | list[str] = Field("none", description="Trackers.")
    extra: dict[str, Any] | str | None = Field(None, description="Passed on.")
    use: bool | str = Field(True, description="A switch or a name.")


Passed = pydantic.create_model("Passed", __base__=Loop, max_steps=(int, Field(-1, description="Updates.")))


class Recipe(Settings):
    seed: int = Field(1, description="Seed.")
    name: str = Field("run", description="Name of the run.")
    data: Data = Field(default_factory=Data, description="Corpora.")
    training: Passed = Field(default_factory=Passed, description="The loop.")
    decoding: Search = Field(Search(num_beams=5), description="Search in validation.")
    rerank: Search | None = Field(None, description="A second search; null does without.")


def refusals(*overrides: str, text: str | None = None, tmp_path: Path | None = None) -> list[str]:
    file = None
    if text is not None:
        file = tmp_path / "settings.yaml"
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(Recipe, file, overrides)
    return [finding.replace(f"{tmp_path}{os.sep}", "") for finding in caught.value.findings]


def from_text(tmp_path: Path, text: str) -> Recipe:
    file = tmp_path / "settings.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return load(Recipe, file)


# What values mean


def test_yaml_scalars_take_the_type_of_their_field(tmp_path):
    settings = from_text(
        tmp_path,
        """
        name: 123
        data:
          source_language: no
          train: {source: [1, off, 'x'], target: 1e5, max_rows: 1_000}
        training:
          learning_rate: 2e-4
          bf16: off
          save_strategy: no
          report_to: off
          use: no
          extra: {a: 1e-3, b: no, c: '5', d: 012, e: [true, ~], f: 1:30, g: 2024-01-02}
        """,
    )
    assert settings.name == "123"
    assert settings.data.source_language == "no"
    assert settings.data.train.source == ["1", "off", "x"]
    assert settings.data.train.target == Path("1e5")
    assert settings.data.train.max_rows == 1000
    assert settings.training.learning_rate == 2e-4
    assert settings.training.bf16 is False
    assert settings.training.save_strategy == "no"
    assert settings.training.report_to == "off"
    assert settings.training.use == "no"
    extra = {"a": 1e-3, "b": "no", "c": "5", "d": 12, "e": [True, None], "f": "1:30", "g": "2024-01-02"}
    assert settings.training.extra == extra


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("name=123", "name", "123"),
        ("name=", "name", ""),
        ("name=a=b, c: [d", "name", "a=b, c: [d"),
        ("name=[a]", "name", "[a]"),
        ("name='null'", "name", "null"),
        ("name='a' or 'b'", "name", "'a' or 'b'"),
        ("seed=7", "seed", 7),
        ("seed=1e3", "seed", 1000),
        ("seed=-3", "seed", -3),
        ("data.train.source=a.ko", "data.train.source", "a.ko"),
        ("data.train.source=2024", "data.train.source", "2024"),
        ("data.train.source=[a,b]", "data.train.source", ["a", "b"]),
        ("data.train.source=[1, null]x", "data.train.source", "[1, null]x"),
        ("data.train.source=null", "data.train.source", None),
        ("data.train.target=1e5", "data.train.target", Path("1e5")),
        ("data.more={x: {max_rows: 3}}", "data.more", {"x": Corpus(max_rows=3)}),
        ("data.more.x.max_rows=3", "data.more", {"x": Corpus(max_rows=3)}),
        ("data.parts=[{source: 5}, {}]", "data.parts", [Corpus(source="5"), Corpus()]),
        ("training.learning_rate=3", "training.learning_rate", 3.0),
        ("training.learning_rate=.inf", "training.learning_rate", math.inf),
        ("training.bf16=yes", "training.bf16", True),
        ("training.save_strategy=no", "training.save_strategy", "no"),
        ("training.use=true", "training.use", True),
        ("training.use=5", "training.use", "5"),
        ("training.extra=text", "training.extra", "text"),
        ("training.extra={a: 1}", "training.extra", {"a": 1}),
        ("training.max_steps=9", "training.max_steps", 9),
        ("rerank={num_beams: 4}", "rerank", Search(num_beams=4)),
        ("rerank=null", "rerank", None),
    ],
)
def test_override_means(override, path, value):
    found: Any = load(Recipe, overrides=[override])
    for step in path.split("."):
        found = getattr(found, step)
    assert found == value
    assert type(found) is type(value)


def test_later_overrides_and_the_command_line_win(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("seed: 2\nrerank: {num_beams: 3}\n")
    assert load(Recipe, file).seed == 2
    assert load(Recipe, file, ["seed=3", "seed=4"]).seed == 4
    assert load(Recipe, file, ["rerank=null"]).rerank is None
    assert load(Recipe, file, ["rerank=null", "rerank.num_beams=2"]).rerank == Search(num_beams=2)
    assert load(Recipe, file, ["rerank.length_penalty=0.6"]).rerank == Search(num_beams=3, length_penalty=0.6)


def test_a_default_set_by_the_holder_stays_when_a_neighbour_changes():
    decoding = load(Recipe, overrides=["decoding.length_penalty=0.6"]).decoding
    assert decoding == Search(num_beams=5, length_penalty=0.6)


def test_an_empty_file_and_an_empty_section_stand_for_the_defaults(tmp_path):
    assert from_text(tmp_path, "") == Recipe()
    assert from_text(tmp_path, "# nothing\ndecoding:\nrerank:\n") == Recipe()


def test_anchors_and_merge_keys(tmp_path):
    settings = from_text(tmp_path, "decoding: &beams {num_beams: 4}\nrerank: {<<: *beams, length_penalty: 0.5}\n")
    assert settings.rerank == Search(num_beams=4, length_penalty=0.5)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("False", False), ("yes", "yes"), ("0o17", 15), ("0x1F", 31), ("017", 17), ("1_0", "1_0")]
    + [("1.", 1.0), (".5", 0.5), ("1e3", 1000.0), ("-.INF", -math.inf), ("~", None), ("", None), ("nUll", "nUll")]
    + [("+12", 12), ("0", 0), ("12:30:45", "12:30:45"), ("<<", "<<"), ("=", "="), ("1.2.3", "1.2.3"), (".", ".")],
)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    assert core_scalar(text) == value and type(core_scalar(text)) is type(value)


# What is refused, and what the message says


@pytest.mark.parametrize(
    ("override", "finding"),
    [
        ("lerning_rate=1", "lerning_rate: unknown key. Did you mean training.learning_rate?"),
        ("training.lerning_rate=1", "training.lerning_rate: unknown key. Did you mean training.learning_rate?"),
        ("learning_rate=1", "learning_rate: unknown key here. It is written training.learning_rate."),
        ("training.seed=1", "training.seed: unknown key here. It is written seed."),
        ("num_beams=1", "num_beams: unknown key here. It is written decoding.num_beams or rerank.num_beams."),
        ("zzz=1", "zzz: unknown key. Allowed here: data, decoding, name, rerank, seed, training."),
        ("rerank.zz=1", "rerank.zz: unknown key. Allowed in rerank: length_penalty, num_beams."),
        ("rerank.length=1", "rerank.length: unknown key. Did you mean rerank.length_penalty?"),
        ("data.more.x.max_row=1", "data.more.x.max_row: unknown key. Did you mean data.more.x.max_rows?"),
        ("training.warmup_ratio=1", "training.warmup_ratio: is now warmup_steps, where below 1 means a share."),
        (
            "warmup_ratio=1",
            "warmup_ratio: unknown key. training.warmup_ratio: is now warmup_steps, where below 1 means a share.",
        ),
        ("seed=x", "seed: given 'x', allowed: integer."),
        ("seed=1.5", "seed: given 1.5, allowed: integer."),
        ("seed=", "seed: given null, allowed: integer."),
        ("name=null", "name: given null, allowed: text."),
        ("data.train.max_rows=0", "data.train.max_rows: given 0, allowed: integer >= 1 or null."),
        (
            "data.train.max_rows=None",
            "data.train.max_rows: given 'None', allowed: integer >= 1 or null. For no value write null.",
        ),
        ("data.train.source={a: 1}", "data.train.source: given {'a': 1}, allowed: text or [text, ...] or null."),
        ("data.parts=3", "data.parts: given 3, allowed: [section, ...]. Write a list as [a, b]."),
        ("data.parts=[3", "data.parts: '[3' is not a list like [a, b] nor a dict like {a: 1}."),
        ("data.parts=[{max_rows: x}]", "data.parts[0].max_rows: given 'x', allowed: integer >= 1 or null."),
        ("data.more={b: {max_rows: q}}", "data.more.b.max_rows: given 'q', allowed: integer >= 1 or null."),
        ("training.bf16=maybe", "training.bf16: given 'maybe', allowed: true or false."),
        ("training.learning_rate=true", "training.learning_rate: given true, but a number is needed."),
        (
            "training.save_strategy=step",
            "training.save_strategy: given 'step', allowed: no | steps | epoch. Did you mean steps?",
        ),
        ("training.learning_rate=-1", "training.learning_rate: given -1, allowed: number > 0."),
        (
            "training=5",
            "training: given 5, but this is a section. Set its keys, such as training.learning_rate=VALUE.",
        ),
        (
            "rerank.length_penalty=2",
            "rerank: length_penalty has no effect with num_beams=1. Set num_beams=2 or more.",
        ),
        ("foo", "'foo' is not a setting. Type key=value, such as seed=7."),
        ("a..b=1", "'a..b=1' is not a setting. Type key=value, such as seed=7."),
        ("seed.x=1", "seed: given {'x': 1}, allowed: integer."),
    ],
)
def test_refusal(override, finding):
    assert refusals(override) == [finding]


def test_a_key_below_a_value_given_as_a_whole():
    finding = "data.parts.x: data.parts was given as a whole ('[]'). Change it as a whole: data.parts=VALUE."
    assert refusals("data.parts=[]", "data.parts.x=1") == [finding]


def test_required_key_tells_its_meaning():
    class Needs(Settings):
        model: Path = Field(description="Folder of the model.")

    with pytest.raises(ConfigError) as caught:
        load(Needs)
    assert caught.value.findings == [
        "model: required and not given (Folder of the model). Write it in the settings file or type model=VALUE."
    ]


def test_a_validator_may_give_several_findings():
    class Two(Settings):
        @pydantic.model_validator(mode="after")
        def _two(self) -> Two:
            raise ConfigError(["one", "two"])

    class Holder(Settings):
        inner: Two | None = Field(None, description="Section.")

    with pytest.raises(ConfigError) as caught:
        load(Holder, overrides=["inner={}"])
    assert caught.value.findings == ["inner: one", "inner: two"]


def test_what_a_section_finds_in_itself_has_the_whole_dotted_path():
    class Inner(Settings):
        steps: int = 1

        @pydantic.model_validator(mode="after")
        def _two_findings(self):
            raise ConfigError([f"steps: {self.steps} is odd", "inner.steps.sub: odd", "this is no key: odd"])

    class Outer(Settings):
        part: Inner = Inner.model_construct()
        list_of: list[Inner] = []

    with pytest.raises(ConfigError) as caught:
        load(Outer, overrides=["part.steps=3"])
    assert caught.value.findings == [
        "part.steps: 3 is odd",
        "part.inner.steps.sub: odd",
        "part: this is no key: odd",
    ]
    with pytest.raises(ConfigError) as caught:
        load(Outer, overrides=["list_of=[{steps: 5}]"])
    assert caught.value.findings[0] == "list_of[0].steps: 5 is odd"


def test_all_mistakes_at_once(tmp_path):
    text = "seed: 1\nseed: 2\ndata:\n  train:\n    max_rows: 0\n  trian: 5\ntraining: {bf16: perhaps}\n"
    assert refusals("lerning_rate=1", "foo", text=text, tmp_path=tmp_path) == [
        "settings.yaml, line 2: the key 'seed' is written twice (first in line 1). Keep one of them.",
        "'foo' is not a setting. Type key=value, such as seed=7.",
        "data.trian: unknown key. Did you mean data.train?",
        "lerning_rate: unknown key. Did you mean training.learning_rate?",
        "data.train.max_rows: given 0, allowed: integer >= 1 or null.",
        "training.bf16: given 'perhaps', allowed: true or false.",
    ]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("a: [1\nb: 2\n", "settings.yaml, line 2: this is not YAML: expected ',' or ']', but got ':'"),
        ("- a\n", "settings.yaml: a settings file holds `key: value` lines, this one holds ['a']."),
        ("a\n", "settings.yaml: a settings file holds `key: value` lines, this one holds 'a'."),
        (
            "a: 1\n\tb: 2\n",
            "settings.yaml, line 2: this is not YAML: found character '\\t' that cannot start any token",
        ),
        ("? [a]\n: 1\n", "settings.yaml, line 1: this is not YAML: a key must be a single word"),
        (
            "seed: !!python/name:os.system\n",
            "settings.yaml, line 1: this is not YAML: could not determine a constructor",
        ),
        ("data.train: 1\n", "data.train: write sections one under another in a file; a dotted key is for the command"),
        ("seed: 1\x00\n", "settings.yaml: this is not YAML: unacceptable character #x0000"),
    ],
)
def test_refused_files(tmp_path, text, finding):
    (found,) = refusals(text=text, tmp_path=tmp_path)
    assert found.startswith(finding)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("name: Stra\xdfe\n".encode("latin-1"))
    for name, words in [
        ("latin.yaml", "this is not UTF-8 text. Save the settings file as UTF-8."),
        ("absent.yaml", "the settings file cannot be read: No such file or directory."),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(Recipe, tmp_path / name)
        assert caught.value.findings == [f"{tmp_path / name}: {words}"]


# Writing


plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
awkward = st.sampled_from(
    ["no", "null", "~", "1e-3", "012", "1:30", "0x1f", " x", "a: b", "[a", "- a", "#", "<<", "="]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | plain_text | awkward,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text | awkward, inner, max_size=3),
    max_leaves=5,
)


@given(
    name=plain_text | awkward,
    source=st.none() | plain_text | awkward | st.lists(plain_text | awkward, max_size=3),
    rate=st.floats(min_value=0, exclude_min=True, allow_nan=False),
    seed=st.integers(),
    extra=st.dictionaries(plain_text | awkward, anything, max_size=3) | plain_text | st.none(),
    use=st.booleans() | plain_text | awkward,
    beams=st.none() | st.integers(1, 9),
)
@example(name="a", source=None, rate=1.0, seed=0, extra={"a": math.inf, "b": [-math.inf]}, use=True, beams=None)
@hypothesis_settings(max_examples=150, deadline=None)
def test_what_is_dumped_loads_the_same(tmp_path_factory, name, source, rate, seed, extra, use, beams):
    settings = Recipe(
        name=name,
        seed=seed,
        data=Data(train=Corpus(source=source, target=Path("a/b")), more={name: Corpus(source=name)}),
        training=Passed(learning_rate=rate, extra=extra, use=use),
        rerank=None if beams is None else Search(num_beams=beams),
    )
    file = tmp_path_factory.getbasetemp() / "dumped.yaml"
    file.write_text(dump(settings), encoding="utf-8", newline="")
    assert load(Recipe, file) == settings
    assert fingerprint(load(Recipe, file)) == fingerprint(settings)
    # Any YAML 1.1 reader sees the same strings.
    assert yaml.safe_load(dump(settings))["name"] == name


def test_dump_is_readable():
    settings = load(Recipe, overrides=["data.train.source=[a,b]", "name=no", "data.train.target=x/y"])
    assert dump(settings).startswith(
        "seed: 1\nname: 'no'\ndata:\n  source_language: ko\n  train:\n    source: [a, b]\n    target: x/y\n"
    )


def test_fingerprint_is_that_of_canonical_json():
    # echo -n '[{"a":[1,2],"b":"x/y"},"z"]' | sha256sum
    assert fingerprint({"b": Path("x/y"), "a": (1, 2)}, "z") == "d9f3608819e9822b"
    assert fingerprint({"a": [2, 1]}) != fingerprint({"a": [1, 2]})
    assert fingerprint({3, 1, 2}) == fingerprint([1, 2, 3])
    assert fingerprint(Recipe()) == fingerprint(Recipe(seed=1)) != fingerprint(Recipe(seed=2))
    with pytest.raises(TypeError, match="No canonical form for object"):
        fingerprint(object())


class Continued(Settings):
    class Steps(Settings):
        every: int = Field(500, description="Steps between checkpoints.")
        total: float = Field(1000.0, description="Steps.")

        @pydantic.model_validator(mode="after")
        def _whole(self):
            if self.total % self.every:
                raise ConfigError("total: not a multiple of every.")
            return self

    resume: Path | None = Field(None, description="Run to continue.")
    output_dir: Path = Field(Path("runs"), description="Where.")
    width: int = Field(512, description="Width.")
    trackers: str | list[str] = Field("none", description="Trackers.")
    steps: Steps = Field(Steps(), description="Steps.")
    corpus: Path = Field(Path("a.txt"), description="Text.")

    places: ClassVar[tuple[str, ...]] = ("corpus",)


RECORDED = {"resume": None, "output_dir": "runs", "width": 64, "trackers": "none", "corpus": "a.txt"}
RECORDED |= {"steps": {"every": 300, "total": 900.0}}


def test_a_run_goes_on_with_what_it_was_started_with(tmp_path):
    (tmp_path / "same.yaml").write_text("width: 64\nsteps:\n  total: 900\n")
    settings = continued(
        Continued, RECORDED, tmp_path / "same.yaml", ["resume=runs/x", "output_dir=./runs", "steps.every=300"]
    )
    assert settings.model_dump(mode="json") == RECORDED | {"resume": "runs/x"}


def test_the_same_may_be_spelt_otherwise_and_files_may_have_moved():
    typed = ["resume=runs/x", "trackers=[none]", f"output_dir={Path('runs').absolute()}", "corpus=moved/a.txt"]
    settings = continued(Continued, RECORDED, None, typed)
    assert settings.corpus == Path("moved/a.txt") and settings.width == 64
    with pytest.raises(ConfigError, match="trackers: given "):
        continued(Continued, RECORDED, None, ["resume=runs/x", "trackers=[none,b]"])


@pytest.mark.parametrize(
    ("file", "overrides", "refused"),
    [
        ("", ["width=512"], {"width: given 512, but the run to be continued has 64; it keeps its settings. "}),
        ("", ["output_dir=other"], {"output_dir: given 'other', but the run to be continued has 'runs'"}),
        ("width: 512", ["steps.every=100"], {"width: given 512", "steps.every: given 100, but the run to be"}),
        ("", ["steps.every=500"], {"steps.every: given 500, but the run to be continued has 300"}),
        ("", ["steps=null"], {"steps.every: given 500", "steps.total: given 1000.0"}),
        ("", ["widht=512", "width=1"], {"widht: unknown key. Did you mean width?", "width: given 1, but"}),
        ("", ["width=wide"], {"width: given 'wide', but the run to be continued has 64"}),
    ],
)
def test_what_a_run_to_be_continued_has_is_not_changed(tmp_path, file, overrides, refused):
    (tmp_path / "other.yaml").write_text(file)
    with pytest.raises(ConfigError) as error:
        continued(Continued, RECORDED, tmp_path / "other.yaml", ["resume=runs/x", *overrides])
    assert len(error.value.findings) == len(refused)
    assert all(any(finding.startswith(text) for finding in error.value.findings) for text in refused)


def test_a_run_of_another_version_is_not_continued():
    with pytest.raises(ConfigError) as error:
        continued(Continued, RECORDED | {"wdth": 3}, None, ["resume=runs/x"])
    assert error.value.findings == [
        "resume: the run was started with another version of hf_nmt; continue it with that one, or start anew.",
        "recorded wdth: unknown key. Did you mean width?",
    ]


def test_differences_name_the_path():
    before, after = {"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "d": [1, 2], "e": None}
    assert differences(before, after) == [("a.c", 2, 3), ("d", [1], [1, 2])]
