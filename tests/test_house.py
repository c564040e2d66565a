"""The house rules, read from the files themselves: imports, sizes, names, settings files, figures."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import io
import re
import shlex
import sys
import tokenize
from fnmatch import fnmatch
from pathlib import Path

import pytest

from hf_nmt.config import Settings, load
from hf_nmt.config_keys import keys_of
from hf_nmt.errors import ConfigError

ROOT = Path(__file__).parent.parent

# A room may import any lower floor, and on its own floor only what SAME_FLOOR names.
FLOORS = [
    {
        "errors",
        "protocols",
        "config",
        "config_arguments",
        "config_help",
        "config_keys",
        "config_yaml",
        "launching",
        "artifacts",
        "models",
        "environment",
    },
    {
        "benchmarking",
        "planting",
        "tokenizer_training",
        "tokenizer_checking",
        "subwords",
        "language",
        "batching",
        "reporting",
        "runs",
        "run_records",
        "registry",
        "data",
        "marian",
    },
    {"metrics"},
    {"generation", "ort"},
    {"translators", "evaluation"},
    {"training", "cleaning", "serving", "cards", "sharing"},
    {"vocabularies", "tuning", "profiling"},
]
SAME_FLOOR = {
    "config": {"errors", "config_arguments", "config_help", "config_keys", "config_yaml", "launching"},
    "config_arguments": {"config_keys"},
    "config_help": {"errors", "config_keys"},
    "config_keys": {"errors", "config_yaml"},
    "config_yaml": {"errors"},
    "launching": {"config_keys", "errors"},
    "artifacts": {"errors"},
    "data": {"language", "reporting"},
    "reporting": {"runs"},
    "run_records": {"runs"},
    "tokenizer_checking": {"tokenizer_training"},
    "tokenizer_training": {"subwords"},
    "ort": {"generation"},
    "evaluation": {"translators"},
    "sharing": {"cards"},
}
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    folders = ("hf_nmt", "recipes", "export", "tests", "docs", "model_cards", ".ci")
    kinds = {".py", ".md", ".yaml", ".yml", ".cfg", ".toml", ".txt", ".sh", ".cff", ".json", ""}
    files = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files += ROOT.iterdir()
    return sorted(
        path
        for path in files
        if path.is_file() and path.suffix in kinds and not {"__pycache__", ".git"} & {*path.parts}
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path) -> list[tuple[int, int, str]]:
    """(line, level, dotted name) of every import; `from hf_nmt import runs` counts as hf_nmt.runs."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, 0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "hf_nmt" and not node.level:
            found += [(node.lineno, 0, f"hf_nmt.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.level, node.module or ""))
    return found


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "hf_nmt").parts[0].removesuffix(".py")


def misplaced(room: str, imported: str) -> bool:
    """Whether `room` may not import the room `imported`."""
    if room == imported:
        return False
    floor, other = FLOOR_OF[room], FLOOR_OF[imported]
    return other > floor or (other == floor and imported not in SAME_FLOOR.get(room, ()))


# Imports


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in python_files("hf_nmt")} - {"__init__"}
    assert len(rooms) > 10
    assert rooms <= set(FLOOR_OF), "a new room: place it on a floor in this file and in CONTRIBUTING.md"


def test_the_rule_finds_what_it_should():
    assert misplaced("data", "metrics") and misplaced("data", "batching") and misplaced("errors", "config")
    assert not misplaced("data", "language") and not misplaced("training", "models") and not misplaced("runs", "runs")


def test_imports_go_down_only():
    checked, faults = 0, []
    for path in python_files("hf_nmt"):
        room = room_of(path)
        if room in ("__init__", "models"):
            continue
        for line, level, name in imports_of(path):
            steps = name.split(".")
            if steps[0] == "hf_nmt" and steps[1] not in ("__version__",):
                checked += 1
                if misplaced(room, steps[1]):
                    faults.append(f"{name_of(path)}:{line}: {room} imports {name}")
            elif level:
                faults.append(f"{name_of(path)}:{line}: relative import; write it out")
    assert checked > 50
    assert faults == []


def test_models_travel_alone():
    """The files of models/ are copied beside the weights: flat, and nothing of ours but each other."""
    files = python_files("hf_nmt/models")
    assert len(files) > 4
    assert [name_of(path) for path in files if path.parent != ROOT / "hf_nmt" / "models"] == []
    ours = [
        f"{name_of(path)}:{line}: {name}"
        for path in files
        for line, level, name in imports_of(path)
        if name.split(".")[0] == "hf_nmt" or level > 1 or (level == 1 and "." in name)
    ]
    assert ours == []


def test_what_works_without_torch():
    """Texts and settings are read without torch: data takes scorers and translators as arguments."""
    files = [*python_files("hf_nmt/data"), ROOT / "hf_nmt" / "protocols.py", ROOT / "hf_nmt" / "config.py"]
    assert len(files) > 4
    faults = [
        f"{name_of(path)}:{line}"
        for path in files
        for line, _, name in imports_of(path)
        if name.split(".")[0] == "torch"
    ]
    assert faults == []


def test_scripts_import_the_package_and_never_each_other():
    scripts = [path for path in python_files("recipes", "export", "docs") if path.parent.name != "configs"]
    assert scripts
    stems = {path.stem for path in scripts} | {"recipes", "export", "tests"}
    faults = [
        f"{name_of(path)}:{line}: {name}"
        for path in scripts
        for line, level, name in imports_of(path)
        if level or (name.split(".")[0] in stems and not importlib.util.find_spec(name.split(".")[0]))
    ]
    assert faults == []


def test_nothing_imports_scripts_or_tests():
    files = python_files("hf_nmt")
    assert files
    scripts = {"recipes", "export", "tests"}
    assert [name_of(path) for path in files for _, _, name in imports_of(path) if name.split(".")[0] in scripts] == []


def test_every_folder_of_the_package_is_installed():
    folders = {path.parent for path in python_files("hf_nmt")}
    assert len(folders) > 4
    assert [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_every_data_file_of_the_package_is_installed():
    files = [path for path in (ROOT / "hf_nmt").rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert files
    patterns = {
        (ROOT / package.replace(".", "/") / pattern).relative_to(ROOT).as_posix()
        for package, names in SETUP["options.package_data"].items()
        for pattern in re.split(r"[\s,]+", names.strip())
    }
    assert [name_of(path) for path in files if not any(fnmatch(name_of(path), p) for p in patterns)] == []


def test_every_package_that_is_imported_is_required():
    """What an optional package is needed for goes through need(); so a plain import means the core install."""
    imported = {
        (name.split(".")[0], name_of(path))
        for path in python_files("hf_nmt", "recipes", "export")
        for _, level, name in imports_of(path)
        if not level
    }
    assert len(imported) > 20
    required = set(re.findall(r"^([\w-]+)", SETUP["options"]["install_requires"], flags=re.MULTILINE))
    known = required | set(sys.stdlib_module_names) | {"hf_nmt", "yaml", "pydantic_core"}
    assert sorted((name, path) for name, path in imported if name not in known) == []


def test_every_extra_that_is_named_exists():
    extras = set(SETUP["options.extras_require"])
    named = {}
    for path in [*python_files("hf_nmt", "recipes", "export"), *ROOT.rglob("recipes/**/*.yaml"), *ROOT.glob("*.md")]:
        for match in re.finditer(
            r'hf_nmt\[([\w,-]+)\]|\bneed\("[\w.]+", "([\w-]+)"\)', path.read_text(encoding="utf-8")
        ):
            named |= {extra: name_of(path) for extra in (match[1] or match[2]).split(",")}
    assert named
    assert {extra: where for extra, where in named.items() if extra not in extras} == {}


# Sizes and names


@pytest.mark.parametrize(
    ("folder", "limit"), [("hf_nmt", 500), ("tests", 500), ("docs", 500), ("recipes", 150), ("export", 150)]
)
def test_length_of_files(folder, limit):
    files = python_files(folder)
    assert files or folder in ("docs", "export")
    lengths = {name_of(path): path.read_text(encoding="utf-8").count("\n") for path in files}
    assert {name: length for name, length in lengths.items() if length > limit} == {}


def test_no_file_for_odds_and_ends():
    files = python_files("hf_nmt", "recipes", "export", "tests")
    assert files
    assert [
        name_of(path) for path in files if path.stem in {"utils", "util", "helpers", "helper", "common", "misc"}
    ] == []


def test_no_script_hides_a_package():
    """A script's folder comes first on sys.path: a recipe `datasets.py` would be imported in place of the package."""
    scripts = python_files("recipes", "export")
    assert scripts
    taken = {"evaluate", "onnx", "profile", "datasets", "transformers", "tokenizers", "accelerate", "torch", "peft"}
    taken |= set(sys.stdlib_module_names)
    assert [name_of(path) for path in scripts if path.stem in taken] == []


def test_recipes_have_one_shape():
    recipes = python_files("recipes", "export")
    assert recipes
    for path in recipes:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), f"{name_of(path)}: opens with how it is used"
        last = tree.body[-1]
        assert isinstance(last, ast.If) and ast.unparse(last) == "if __name__ == '__main__':\n    launch(main)", (
            path.name
        )


# What files may hold


def test_the_package_prints_nothing():
    files = python_files("hf_nmt")
    assert files
    faults = [
        f"{name_of(path)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print")
        or (
            path.name not in ("config.py", "launching.py")
            and isinstance(node, ast.Attribute)
            and ast.unparse(node) == "sys.stdout"
        )
    ]
    assert faults == []


def test_comments_are_plain():
    files = python_files("hf_nmt", "recipes", "export", "tests", "docs")
    assert files
    faults = []
    for path in files:
        for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
            odd = token.type == tokenize.COMMENT and re.search(
                r"[^\x00-\x7f]|\b(TODO|FIXME|XXX)\b|[-=#*]{8}", token.string
            )
            if odd:
                faults.append(f"{name_of(path)}:{token.start[0]}: {token.string}")
    assert faults == []


def test_no_path_of_one_machine():
    files = text_files()
    assert len(files) > 50
    pattern = re.compile(r"(?<![\w.}>\])~])/(home|root|work|tmp|Users|mnt|opt|srv)/\w")
    faults = [
        f"{name_of(path)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1)
        if pattern.search(line)
    ]
    assert faults == []


# Settings files

CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*/*.yaml"))


def settings_of(recipe: str) -> type[Settings]:
    folder = "recipes" if (ROOT / "recipes" / f"{recipe}.py").is_file() else "export"
    spec = importlib.util.spec_from_file_location(f"_house_{recipe}", ROOT / folder / f"{recipe}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # annotations written as strings are looked up there
    spec.loader.exec_module(module)
    return module.SETTINGS


def findings_of(settings: type[Settings], config: Path | None, overrides: list[str]) -> list[str]:
    """What is wrong with a call, besides keys that the user must add."""
    try:
        load(settings, config, overrides)
    except ConfigError as error:
        return [finding for finding in error.findings if "required and not given" not in finding]
    return []


def launch_lines(path: Path) -> list[list[str]]:
    """The command lines in the comment that opens a settings file, as lists of words."""
    comment = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    text = re.sub(r"^# ?", "", comment[0] if comment else "", flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line for line in text.split("\n") if re.match(r" {2,}.*\b(recipes|export)/\w+\.py", line)]
    return [shlex.split(re.sub(r"\s[<>|].*", "", re.sub(r"<(\w+)>", r"\1", line))) for line in lines]


def test_there_are_settings_files():
    assert len(CONFIGS) > 5
    recipes = {path.stem for path in python_files("recipes")}
    assert {path.parent.name for path in CONFIGS} == recipes
    assert {
        recipe for recipe in recipes if not (ROOT / "recipes" / "configs" / recipe / "tiny.yaml").is_file()
    } == set()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_settings_file_is_valid_and_opens_with_its_launch_line(path):
    settings = settings_of(path.parent.name)
    assert findings_of(settings, path, []) == []
    lines = launch_lines(path)
    assert lines, "the opening comment must hold the line that launches it"
    for words in lines:
        start = next(index for index, word in enumerate(words) if word.endswith(".py"))
        assert (ROOT / words[start]).is_file()
        arguments = words[start + 1 :]
        given = [word for word in arguments if "=" in word]
        config = None
        if "--config" in arguments:
            name = arguments[arguments.index("--config") + 1]
            config = ROOT / name if name.endswith(".yaml") else path.with_name(f"{name}.yaml")
            assert config.is_file(), name
        script = settings_of(Path(words[start]).stem)
        assert findings_of(script, config, given) == []


@pytest.mark.parametrize("recipe", sorted(path.stem for path in python_files("recipes", "export")))
def test_every_key_has_a_meaning_and_unknown_keys_are_refused(recipe):
    classes = sorted({key.owner for key in keys_of(settings_of(recipe))}, key=lambda owner: owner.__name__)
    assert classes
    for owner in classes:
        assert owner.model_config.get("extra") == "forbid", owner
        assert [name for name, field in owner.model_fields.items() if not field.description] == [], owner


# The documentation


def test_every_figure_has_its_data_beside_it():
    pages = list((ROOT / "docs").rglob("*.md"))
    assert pages
    figures = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".svg", ".png", ".jpg", ".webp", ".pdf")]
    assert [name_of(path) for path in figures if not path.with_suffix(".json").is_file()] == []
    assert [name_of(path) for path in ROOT.glob("*") if path.suffix in (".svg", ".png", ".jpg", ".pdf")] == []


def test_every_benchmark_can_be_run_again():
    folders = [
        path for path in (ROOT / "docs" / "benchmarks").iterdir() if path.is_dir() and path.name != "__pycache__"
    ]
    assert [name_of(path) for path in folders if not (path / "run.py").is_file()] == []


def test_links_between_pages_lead_somewhere():
    pages = [path for path in text_files() if path.suffix == ".md"]
    assert len(pages) > 5
    faults = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists():
                faults.append(f"{name_of(page)}: {target}")
    assert faults == []
