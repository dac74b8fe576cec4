import re
import subprocess
import sys
from pathlib import Path

from service.settings import Settings

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "operations.md").read_text()
    missing = [name for name in Settings.model_fields if f"`DEEPNIGHT_{name.upper()}`" not in text]
    assert missing == []


def test_no_setting_is_documented_that_does_not_exist():
    known = {f"DEEPNIGHT_{name.upper()}" for name in Settings.model_fields} | {"DEEPNIGHT_URL", "DEEPNIGHT_API_KEY"}
    for page in PAGES:
        assert set(re.findall(r"DEEPNIGHT_[A-Z_]+[A-Z]", page.read_text())) <= known, page


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_table_of_models_is_what_cards_and_figures_say():
    command = [sys.executable, str(ROOT / "scripts" / "models_table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_test_that_a_page_names_exists():
    for page in PAGES:
        for name in re.findall(r"`((?:unit|contract|e2e|chaos)/[\w/]+\.py)`", page.read_text()):
            assert (ROOT / "tests" / name).is_file(), f"{page.name} names {name}"
