"""The shape of the code: imports go one way, every option is live, pseudocode tags recur, no hidden randomness."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from nacre.algorithms import registry
from nacre.envs.registry import load_object

SOURCE = Path(__file__).parents[1] / "src" / "nacre"
FILES = sorted(p for p in SOURCE.rglob("*.py") if p.name != "__init__.py")

# Lower layers first; a module may import from its own layer and those before it (design, section 3).
LAYERS = [
    ["types", "_checks", "_errors", "_files", "_platform", "plotting"],
    ["nn", "images", "attention", "distributions", "per_action", "per_pair", "optim"],
    ["envs"],
    ["rollout", "replay"],
    ["updates"],
    ["algorithms"],
    ["presets"],
    ["results", "stats", "evaluate"],
    ["_checkpoints", "_records", "_versions", "_signals", "_progress", "runs"],
    ["report", "report_compare", "report_data", "report_figures", "report_summary", "report_text"],
    [
        "_memory",
        "_head_start",
        "_settings",
        "_loop_parts",
        "_loop",
        "train",
        "_policy_file",
        "agent",
        "watch",
        "metaworld_evaluation",
    ],
    ["cli", "_cli_train", "_doctor", "__main__"],
]
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}
LONGEST = 350  # lines of a file; those below may be longer
LONGER = {"algorithms/pearl.py": 500, "algorithms/varibad.py": 430}  # its options and the paper's schedule


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, top_level: bool):
    """Names of our modules that a file imports; lazily imported ones too unless top_level."""
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "nacre":
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("nacre."):
                    yield alias.name.split(".")[1]


def violations(name: str, source: str) -> list[str]:
    return [other for other in imports(ast.parse(source), True) if other in LAYER and LAYER[other] > LAYER[name]]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    assert name_of(path) in LAYER, "a new module: give it a layer"
    assert violations(name_of(path), path.read_text()) == []


def test_a_planted_violation_is_found():
    assert violations("types", "from nacre.train import train") == ["train"]
    assert violations("replay", "from nacre import cli, nn") == ["cli"]


def test_algorithms_never_import_each_other():
    for path in (SOURCE / "algorithms").glob("*.py"):
        if path.name != "registry.py":
            assert "algorithms" not in set(imports(ast.parse(path.read_text()), False)), path.name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_are_short_and_have_no_hidden_randomness(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGER.get(str(path.relative_to(SOURCE)), LONGEST)
    legacy = [
        line for line in text.splitlines() if re.search(r"np\.random\.(?!default_rng|Generator|RandomState)", line)
    ]
    assert legacy == []
    assert "from __future__ import annotations" not in text


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_every_option_is_used_and_every_tag_recurs(name):
    path, config, _ = registry.ALGORITHMS[name]
    source = (SOURCE / (path.partition(":")[0].removeprefix("nacre.").replace(".", "/") + ".py")).read_text()
    for field in dataclasses.fields(load_object(config)):
        assert re.search(rf"(config|\bc)\.{field.name}\b", source), f"{field.name} does nothing"
    doc, _, code = source[3:].partition('"""')
    for tag in set(re.findall(r"\bL\d+\b", doc)):
        assert re.search(rf"\b{tag}\b", code), f"{tag} of the pseudocode is nowhere in the code"
