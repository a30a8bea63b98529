"""The documents: links lead somewhere, and commands that they quote can be given."""

import re
import shlex
from pathlib import Path

import pytest

from nacre import _cli_train

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACEHOLDERS = "... … FAMILY RUN ALGORITHM | --help file.py: pendulum.py ml1 ml25 ml45".split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in targets if "://" not in link and not (page.parent / link).exists()] == []


def quoted() -> list[str]:
    """Every whole `nacre train ...` of the documents, once."""
    text = "\n".join(page.read_text() for page in PAGES)
    found = re.findall(r"`(nacre train [^`\n]*)`", text) + re.findall(r"^(nacre train .*)$", text, re.MULTILINE)
    return sorted({command for command in found if not any(words in command for words in PLACEHOLDERS)})


def test_quoted_commands_can_be_given(monkeypatch):
    monkeypatch.chdir(ROOT)
    commands = quoted()
    assert len(commands) > 40
    for command in commands:
        algorithm, family, rest = _cli_train.names(shlex.split(command)[2:])
        _cli_train.parse(algorithm, family, rest, _cli_train.preset_of(rest))  # an unknown option ends the process
