"""What the guide shows runs: its Python snippets and its commands, page by page, in their order."""

import re
import shlex
from pathlib import Path

import pytest

from recvae.cli import main

PAGES = [
    page
    for page in sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
    if re.search("^```", page.read_text(), re.M)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_snippet_runs(page, briefly, capsys):
    pytest.importorskip("duckdb")
    namespace: dict = {}
    for language, snippet in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        if language == "python":
            exec(snippet, namespace)
        for command in snippet.splitlines() if language == "bash" else []:
            program, *arguments = shlex.split(command)
            assert program == "recvae"
            assert main(arguments) == 0
    # what a comment says is printed is printed
    printed = capsys.readouterr().out
    for said in re.findall(r"^print\(.*\)  # (.*\.)$", page.read_text(), re.MULTILINE):
        assert said in printed
