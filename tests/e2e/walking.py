"""Walks of the documentation: every block between the marks, in order, against a running service."""

import itertools
import os
import re
import subprocess
from pathlib import Path

from models.core.sources import SOURCES
from service.cli.data import is_here


def blocks(page):
    """Runs of blocks in one language: ``(language, code)``."""
    walk = re.search(r"<!-- walk:begin -->(.*)<!-- walk:end -->", page.read_text(), re.DOTALL)[1]
    found = re.findall(r"```(\w+)\n(.*?)```", walk, re.DOTALL)
    return [
        (language, "\n".join(code for _, code in run)) for language, run in itertools.groupby(found, lambda b: b[0])
    ]


def walk(page, stack, folder):
    """What the shell printed, and the Python variables after the walk."""
    source = "fashion-mnist" if is_here(SOURCES["fashion-mnist"]) else "digits"
    names, printed = {}, ""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for language, written in blocks(page):
            code = written.replace("http://127.0.0.1:8000", stack.base_url).replace("fashion-mnist", source)
            if language == "python":
                exec(compile(code, page.name, "exec"), names)
                continue
            shell = ["bash", "-euo", "pipefail", "-c", code]
            done = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=500)
            assert done.returncode == 0, done.stdout + done.stderr + stack.story()
            printed += done.stdout
    finally:
        os.chdir(before)
    return printed, names
