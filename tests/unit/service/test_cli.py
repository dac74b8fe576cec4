import json
import os
import subprocess
import sys

import pytest

from models.core.sources import SOURCES


@pytest.fixture
def deepnight(tmp_path):
    """Run the command line as a person does, in an empty folder."""

    def run(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-c", "from service.cli import main; main()", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "DEEPNIGHT_HOME": str(tmp_path / "home"), **environment},
            timeout=120,
            check=False,
        )

    return run


def failed(result, code):
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


def test_help_says_what_there_is_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom service.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'ray', 'fastapi', 'numpy', 'redis'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    for command in ("serve", "worker", "models", "data", "train", "evaluate", "keys", "jobs", "version"):
        assert command in result.stdout


def test_version(deepnight):
    assert deepnight("version").stdout.startswith("deepnight ")
    assert {"deepnight", "python", "torch"} <= json.loads(deepnight("version", "--json").stdout).keys()


def test_models_come_from_the_cards(deepnight):
    listed = json.loads(deepnight("models", "list", "--json").stdout)
    slugs = [model["slug"] for model in listed]
    assert slugs
    assert slugs == sorted(slugs)
    table = deepnight("models", "list").stdout
    assert all(slug in table for slug in slugs)


def test_an_unknown_method_is_one_line(deepnight):
    assert "no method 'nope'" in failed(deepnight("models", "show", "nope"), 2)


def test_a_setting_that_is_not_valid_is_named(deepnight):
    assert "DEEPNIGHT_PORT" in failed(deepnight("models", "list", DEEPNIGHT_PORT="many"), 2)


def test_data_list_names_every_source(deepnight):
    listed = json.loads(deepnight("data", "list", "--json").stdout)
    assert [source["name"] for source in listed] == list(SOURCES)
    assert "nope" in failed(deepnight("data", "fetch", "nope"), 2)


def test_keys_live_and_die(deepnight):
    made = json.loads(deepnight("keys", "create", "--name", "ci", "--scopes", "infer,data", "--json").stdout)
    assert made["secret"].startswith("dn_")
    stored = json.loads(deepnight("keys", "list", "--json").stdout)
    assert [(key["id"], key["name"], key["scopes"]) for key in stored] == [(made["id"], "ci", ["data", "infer"])]
    assert "secret" not in stored[0]
    assert deepnight("keys", "revoke", made["id"]).returncode == 0
    assert json.loads(deepnight("keys", "list", "--json").stdout) == []
    assert made["id"] in failed(deepnight("keys", "revoke", made["id"]), 1)


def test_a_wrong_scope_is_named(deepnight):
    assert "'everything'" in failed(deepnight("keys", "create", "--name", "x", "--scopes", "everything"), 2)


def test_a_secret_can_be_captured_by_a_script(deepnight):
    assert deepnight("keys", "create", "--name", "x").stdout.strip().startswith("dn_")


def test_jobs_need_a_running_service(deepnight):
    message = failed(deepnight("jobs", "list", DEEPNIGHT_URL="http://127.0.0.1:9"), 1)
    assert "http://127.0.0.1:9" in message


@pytest.mark.parametrize("command", ["gateway", "worker"])
def test_a_part_alone_needs_a_queue(deepnight, command):
    assert "DEEPNIGHT_REDIS_URL" in failed(deepnight(command), 2)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "align-uniform", "--dataset", "nowhere.npz"], "nowhere.npz"),
        (["train", "align-uniform", "--dataset", "digits-8x8:nope"], "'nope'"),
        (["train", "align-uniform", "--dataset", "digits-8x8", "--preset", "huge"], "'huge'"),
        (["train", "align-uniform", "--dataset", "digits-8x8", "--set", "epochs=none"], "epochs"),
        (["train", "align-uniform", "--dataset", "digits-8x8", "--set", "colour=red"], "colour=red"),
        (["evaluate", "align-uniform", "--dataset", "digits", "--write"], "--write"),
    ],
)
def test_wrong_training_commands_are_one_line(deepnight, arguments, named):
    assert named in failed(deepnight(*arguments), 2)
