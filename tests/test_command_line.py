"""The command line of a recipe: forms, refusals, help, and how `launch` ends."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Literal

import pydantic
import pytest
from pydantic import Field

from hf_nmt.config import Settings, from_command_line, load
from hf_nmt.errors import ConfigError


class Corpus(Settings):
    source: str | list[str] | None = Field(None, description="File or files with the source side.")
    max_rows: int | None = Field(None, ge=1, description="Rows at most; null reads all.")


class Data(Settings):
    train: Corpus = Field(default_factory=Corpus, description="Text to learn from.")
    more: dict[str, Corpus] = Field(default_factory=dict, description="Further corpora by name.")
    parts: list[Corpus] = Field(default_factory=list, description="Further corpora.")


class Search(Settings):
    num_beams: int = Field(1, ge=1, description="Hypotheses kept.")


class Loop(Settings):
    learning_rate: float = Field(5e-4, gt=0, description="Peak.")
    bf16: bool = Field(False, description="Half precision.")
    save_strategy: Literal["no", "steps", "epoch"] = Field("steps", description="When.")


class Recipe(Settings):
    seed: int = Field(1, description="Seed.")
    name: str = Field("run", description="Name of the run.")
    data: Data = Field(default_factory=Data, description="Corpora.")
    training: Loop = Field(default_factory=Loop, description="The loop.")
    decoding: Search = Field(Search(num_beams=5), description="Search in validation.")
    rerank: Search | None = Field(None, description="A second search; null does without.")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A call of `from_command_line` as the recipe `learn.py` in a folder of its own."""
    folder = tmp_path / "recipes" / "configs" / "learn"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text("seed: 11\n")
    (folder / "production.yaml").write_text("seed: 12\n")
    monkeypatch.chdir(tmp_path)
    code = compile("def call(*a, **k): return from_command_line(*a, recipe='learn', doc='Learns.', **k)", "x", "exec")

    def run(*argv: str, **options: Any) -> Recipe:
        names = {"from_command_line": from_command_line, "__file__": str(tmp_path / "recipes" / "learn.py")}
        exec(code, names)
        return names["call"](Recipe, list(argv), **options)

    return run


def test_help_is_understood_without_its_dashes(recipe, capsys):
    for argv in (["help", "seed"], ["--help", "seed"]):
        with pytest.raises(SystemExit):
            recipe(*argv)
    text = capsys.readouterr().out
    assert text and text[: len(text) // 2] == text[len(text) // 2 :]
    assert recipe("help", positional="name").name == "help"


def test_forms_of_an_argument(recipe):
    for argv in (
        ["data.train.max_rows=5"],
        ["--data.train.max_rows", "5"],
        ["--data.train.max_rows=5"],
        ["--data.train.max-rows", "5"],
    ):
        assert recipe(*argv).data.train.max_rows == 5, argv
    assert recipe("--seed", "-5").seed == -5
    assert recipe().seed == 1


def test_config_by_name_and_by_path(recipe, tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 13\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "theirs.yaml").write_text("seed: 14\n")
    assert recipe("--config", "tiny").seed == 11
    assert recipe("--config=production", "name=x").seed == 12
    assert recipe("--config", "mine.yaml").seed == 13
    assert recipe("--config", "other/theirs.yaml").seed == 14
    assert recipe(default_config="tiny").seed == 11
    assert recipe("--config", "production", default_config="tiny").seed == 12
    assert recipe("--config", "tiny", "seed=3").seed == 3


def test_positional(recipe):
    assert recipe("in.txt", "seed=2", positional="data.train.source").data.train.source == "in.txt"


@pytest.mark.parametrize(
    ("argv", "finding"),
    [
        (["--config", "tin"], "--config tin: no file of this name. Available: production, tiny. Did you mean tiny?"),
        (["--config", "tiny.yaml"], "--config tiny.yaml: there is no such file (looked from CWD)."),
        (["--config"], "--config: a file or a name must follow. Type --config FILE or --config NAME."),
        (["--confg", "tiny"], "--confg: unknown option. Did you mean --config tiny?"),
        (["--konfig=tiny"], "--konfig: unknown option. Did you mean --config tiny?"),
        (["config=tiny"], "config=tiny: type --config tiny."),
        (["dry_run=true"], "dry_run=true: type --dry-run."),
        (["train.yaml"], "'train.yaml': settings are key=value. For a settings file type --config train.yaml."),
        (["dry-run"], "'dry-run': settings are key=value. Type --dry-run."),
        (["seed"], "'seed': settings are key=value. Type seed=VALUE."),
        (["learning_rate"], "'learning_rate': settings are key=value. Type training.learning_rate=VALUE."),
        (["what"], "'what': settings are key=value, such as seed=7; --help lists all keys."),
        (["--bf16"], "--bf16: a value must follow. Type training.bf16=true or --training.bf16 true."),
        (
            ["--seed", "--dry-run"],
            "--seed: a value must follow. Type seed=VALUE or --seed VALUE.",
        ),
        (["--dryrun"], "--dryrun: unknown option. Type --dry-run."),
        (["--zzzz"], "--zzzz: unknown option. Type key=value; --help lists all keys."),
        (["-seed", "4"], "-seed: unknown option. Type seed=4 or --seed 4."),
        (["-q"], "-q: unknown option. --help lists all keys."),
        (["--learning-rate", "3"], "learning_rate: unknown key here. It is written training.learning_rate."),
    ],
)
def test_wrong_arguments_are_answered_with_what_to_type(recipe, tmp_path, argv, finding):
    with pytest.raises(ConfigError) as caught:
        recipe(*argv)
    assert caught.value.findings == [finding.replace("CWD", str(tmp_path))]


def test_wrong_arguments_and_wrong_settings_together(recipe):
    with pytest.raises(ConfigError) as caught:
        recipe("a.txt", "b.txt", "--config", "none", "seed=x", positional="name")
    assert caught.value.findings == [
        "'b.txt': settings are key=value, such as seed=7; --help lists all keys.",
        "--config none: no file of this name. Available: production, tiny.",
        "seed: given 'x', allowed: integer.",
    ]


def test_only_what_was_typed_is_judged_where_the_settings_file_is_missing(recipe):
    class Strict(Settings):
        seed: int = Field(1, description="Seed.")
        language: str | None = Field(None, description="Language.")

        @pydantic.model_validator(mode="after")
        def _given(self) -> Strict:
            if self.language is None:
                raise ValueError("language: not given")
            return self

    with pytest.raises(ConfigError) as caught:
        from_command_line(Strict, ["--config", "none.yaml", "seed=2"], recipe="learn", doc="")
    assert len(caught.value.findings) == 1 and "--config none.yaml: there is no such file" in str(caught.value)


def test_a_value_of_the_settings_file_that_does_not_fit_one_that_was_typed_is_told(recipe, tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {fp16: true, rate: 3}\nseed: 3\n")

    class Inner(Settings):
        fp16: bool = Field(False, description="Half.")
        bf16: bool = Field(False, description="Half.")
        rate: float = Field(1, description="Rate.")

        @pydantic.model_validator(mode="after")
        def _one(self) -> Inner:
            if self.fp16 and self.bf16:
                raise ConfigError("fp16: at most one of fp16 and bf16 can be true.")
            return self

    class Outer(Settings):
        seed: int = Field(1, description="Seed.")
        training: Inner = Field(Inner(), description="Loop.")

    def findings(*overrides: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(Outer, tmp_path / "mine.yaml", overrides)
        return caught.value.findings

    conflict = "training.fp16: at most one of fp16 and bf16 can be true."
    assert findings("training.bf16=true") == [f"{conflict} (training.fp16=true comes from mine.yaml.)"]
    assert findings("training.bf16=true", "training.fp16=true", "seed=x") == [
        "seed: given 'x', allowed: integer.", conflict
    ]  # fmt: skip


def test_dry_run_prints_what_load_takes(recipe, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        recipe("--config", "tiny", "--dry-run", "training.bf16=true")
    assert left.value.code == 0
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out)
    assert load(Recipe, tmp_path / "again.yaml") == load(Recipe, overrides=["seed=11", "training.bf16=true"])


def test_help_lists_every_key_with_type_default_and_meaning(recipe, capsys):
    with pytest.raises(SystemExit) as left:
        recipe("--help", default_config="tiny", positional="name")
    assert left.value.code == 0
    text = capsys.readouterr().out
    for expected in (
        "Learns.\n\nUsage: python recipes/learn.py [NAME] [--config FILE|NAME] [key=value ...] [--dry-run]\n",
        "one of: production, tiny (default: tiny)\n",
        "general\n  seed: integer; default 11 (tiny.yaml; without it 1)\n      Seed.\n",
        "\ndata.train: Text to learn from.\n  data.train.source: text or [text, ...] or null; default null\n",
        "  data.train.max_rows: integer >= 1 or null; default null\n      Rows at most; null reads all.\n",
        "  data.more.<name>.source, data.more.<name>.max_rows: each as in data.train, with the same default\n",
        "  data.parts[].source, data.parts[].max_rows: each as in data.train, with the same default\n",
        "\ndecoding: Search in validation.\n  decoding.num_beams: integer >= 1; default 5\n",
        "\nrerank: A second search; null does without. (null unless given)\n  rerank.num_beams: integer >= 1;",
        "  training.save_strategy: no | steps | epoch; default 'steps'\n",
    ):
        assert expected in text, expected


def helped(recipe, capsys, *argv: str, **options: Any) -> str:
    with pytest.raises(SystemExit) as left:
        recipe(*argv, **options)
    assert left.value.code == 0
    return capsys.readouterr().out


def test_help_shows_the_defaults_that_run(recipe, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("training: {learning_rate: 2e-3}\nrerank: {num_beams: 3}\n")
    assert "seed: integer; default 1\n" in helped(recipe, capsys, "--help")
    for argv in (["--config", "production", "--help"], ["--help", "--config", "production"]):
        text = helped(recipe, capsys, *argv, default_config="tiny")
        assert "seed: integer; default 12 (production.yaml; without it 1)" in text
        assert "The defaults are those of production.yaml where it sets them" in text
    text = helped(recipe, capsys, "--help", "--config", "mine.yaml", default_config="tiny")
    assert "seed: integer; default 1\n" in text
    assert "training.learning_rate: number > 0; default 0.002 (mine.yaml; without it 0.0005)" in text
    assert "A second search; null does without.\n  rerank.num_beams: integer >= 1; default 3 (mine.yaml;" in text
    with pytest.raises(ConfigError, match="--config nowhere: no file of this name"):
        recipe("--help", "--config", "nowhere")


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["training"], ["training.learning_rate", "training.bf16", "training.save_strategy"]),
        (["training.le"], ["training.learning_rate"]),
        (["--learning-rate"], ["training.learning_rate"]),
        (["beams", "seed"], ["seed", "decoding.num_beams", "rerank.num_beams"]),
        (["data.more.de-en"], ["data.more.<name>.source", "data.more.<name>.max_rows"]),
        (["--data.more.zh-Hant_x.source"], ["data.more.<name>.source"]),
        (["data.parts[2].max_rows"], ["data.parts[].max_rows"]),
    ],
)
def test_help_on_a_section_or_a_part_of_a_name(recipe, capsys, words, keys):
    argv = ["--help", *words] if words[0][0] != "-" else [f"--help={words[0]}"]
    lines = helped(recipe, capsys, *argv, positional="name").splitlines()
    assert [line.strip().partition(":")[0] for line in lines if not line.startswith("   ")] == keys
    assert len(lines) == 2 * len(keys)


def test_help_on_what_is_not_there(recipe):
    with pytest.raises(ConfigError) as caught:
        recipe("--help", "trainign")
    assert caught.value.findings == ["--help trainign: no section or key has this in its name. Did you mean training?"]
    with pytest.raises(ConfigError, match="--help data.more.de_en.suorce: no section or key has this in its name."):
        recipe("--help", "data.more.de-en.suorce")


class Corpora(Settings):
    train: Corpus = Field(Corpus(), description="Text to learn from.")
    validation: Corpus = Field(Corpus(), description="Text to validate with.")
    test: Corpus = Field(Corpus(max_rows=9), description="Text to test with.")
    search: Search | None = Field(
        None, description="As the model does.", json_schema_extra={"left_out": {"num_beams": "as the model has it"}}
    )
    deep: Search | None = Field(
        Search(num_beams=4), description="A search.", json_schema_extra={"left_out": {"num_beams": "never told"}}
    )
    rate: float = Field(0.5, description="A long story.", json_schema_extra={"in_short": "Short."})

    def check_files(self) -> list[str]:
        return ["train.source: a.txt: there is no such file."] if self.train.source == "a.txt" else []


def test_help_tells_repeated_and_rarely_needed_keys_in_short(recipe, capsys):
    def call(*argv: str) -> str:
        with pytest.raises(SystemExit):
            from_command_line(Corpora, list(argv), recipe="learn", doc="")
        return capsys.readouterr().out

    text = call("--help")
    assert "  validation.source, validation.max_rows: each as in train, with the same default\n" in text
    assert "  test.max_rows: integer >= 1 or null; default 9\n      Rows at most" in text
    assert "  rate: default 0.5. Short.\n" in text and "long story" not in text
    assert "search.num_beams: integer >= 1; default as the model has it\n" in text
    assert "deep.num_beams: integer >= 1; default 4\n" in text
    assert call("--help", "rate").endswith("rate: number; default 0.5\n      A long story.\n")
    assert "validation.max_rows: integer >= 1 or null; default null\n      Rows at most" in call(
        "--help", "validation"
    )


def test_files_are_checked_in_a_dry_run_too(capsys):
    for argv in (["train.source=a.txt"], ["train.source=a.txt", "--dry-run"]):
        with pytest.raises(ConfigError, match="there is no such file"):
            from_command_line(Corpora, argv, recipe="learn", doc="")
    assert "a.txt" in capsys.readouterr().out  # the settings are shown all the same


# launch


def run_script(tmp_path: Path, body: str, shell: str = '"$PYTHON" script.py') -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(
        "import errno, os, sys\nfrom hf_nmt.config import launch\nfrom hf_nmt.errors import *\n"
        f"def main(argv):\n{textwrap.indent(textwrap.dedent(body), '    ')}\nlaunch(main)\n"
    )
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("return 0", 0, ""),
        ("return None", 0, ""),
        ("raise DataError('a.txt, line 3: bad')", 2, "Error: a.txt, line 3: bad\n"),
        ("raise GateError('BLEU 3 is under 20')", 1, "Error: BLEU 3 is under 20\n"),
        ("raise ConfigError(['a: x', 'b: y'])", 2, "2 settings cannot be used:\n  a: x\n  b: y\n"),
        ("raise ConfigError('a: x')", 2, "Error: a: x\n"),
        ("raise KeyboardInterrupt", 130, "Interrupted.\n"),
        (
            "raise OSError(errno.ENOSPC, 'No space left on device', 'x.bin')",
            2,
            "Error: x.bin could not be written: the disk is full. "
            "Free space or choose another folder, then run again.\n",
        ),
        (
            "raise OSError(errno.EFBIG, 'File too large', 'x.bin')",
            2,
            "Error: x.bin could not be written: it is larger than a file may be here. "
            "Raise the limit (see `ulimit -f`) "
            "or choose another folder, then run again.\n",
        ),
        (
            "raise RuntimeError('I/O error: No space left on device (os error 28)')",
            2,
            "Error: the disk is full. Free space or choose another folder, then run again.\n",
        ),
        ("import logging; logging.getLogger('hf_nmt.x').info('told'); return 0", 0, "told\n"),
    ],
)
def test_launch_ends_with_message_and_status(tmp_path, body, status, message):
    done = run_script(tmp_path, body)
    assert (done.returncode, done.stderr, done.stdout) == (status, message, "")


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_launch_tells_a_signal(tmp_path, name, status):
    body = f"""
        import signal
        if {name!r} == "SIGINT":  # a shell in the background has it ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            signal.raise_signal(signal.{name})
        finally:
            sys.stderr.write("cleaned up\\n")
    """
    done = run_script(tmp_path, body)
    assert (done.returncode, done.stderr) == (status, "cleaned up\nInterrupted.\n")


def test_a_worker_process_is_terminated_as_ever(tmp_path):
    body = """
        import multiprocessing, time
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=[60])
        worker.start()
        time.sleep(0.5)
        worker.terminate()
        worker.join()
        return 0 if worker.exitcode == -15 else 1
    """
    done = run_script(tmp_path, body)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_while_a_recipe_imports(tmp_path):
    body = """
        import time
        from hf_nmt.config import interrupts_told
        with interrupts_told():
            time.sleep(60)
    """
    (tmp_path / "slow.py").write_text(textwrap.dedent(body))
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, "slow.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    )
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "Interrupted.\n")


def test_launch_shows_the_trace_of_what_is_not_the_users(tmp_path):
    done = run_script(tmp_path, "raise ZeroDivisionError('ours')")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_launch_is_quiet_when_the_reader_leaves(tmp_path):
    body = "for _ in range(100000): sys.stdout.write('line\\n')\nreturn 0"
    done = run_script(tmp_path, body, shell='"$PYTHON" script.py | head -n 1; exit ${PIPESTATUS[0]}')
    assert (done.stdout, done.stderr, done.returncode) == ("line\n", "", 141)
