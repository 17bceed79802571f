"""Settings of the model server, from environment variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_mcp.core.serving.settings import PREFIX, ModelAddress, ServingSettings, read_addresses, read_settings
from airflow_mcp.exceptions import InvalidArgumentError
from tests.support.paths import DOCS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/fraud@champion", ModelAddress("fraud")),
        ("models:/fraud", ModelAddress("fraud")),
        ("fraud", ModelAddress("fraud")),
        ("models:/fraud/Production", ModelAddress("fraud")),
        ("models:/fraud/8", ModelAddress("fraud", "8")),
        ("fraud/8", ModelAddress("fraud", "8")),
        ("./models/fraud", ModelAddress("fraud", "", "models/fraud")),
        ("fraud=models/8", ModelAddress("fraud", "", "models/8")),
        ("/srv/model", ModelAddress("model", "", "/srv/model")),
        ("fraud=/srv/model", ModelAddress("fraud", "", "/srv/model")),
        ("file:///srv/model", ModelAddress("model", "", "/srv/model")),
    ],
)
def test_addresses_of_models(text: str, expected: ModelAddress) -> None:
    assert read_addresses(text) == (expected,)


@pytest.mark.parametrize(
    "text",
    [
        "models:/fraud@latest",
        "models:/fraud/Staging",
        "models:/fraud@challenger",
        "models:/",
        "models:/f/0",
        "models/fraud",
    ],
)
def test_addresses_that_do_not_say_what_answers_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"got '"):
        read_addresses(text)


def test_several_models_need_names_of_their_own() -> None:
    assert [each.name for each in read_addresses("models:/a, models:/b/3")] == ["a", "b"]
    with pytest.raises(InvalidArgumentError, match="a name of its own; got a, a"):
        read_addresses("models:/a,models:/a/2")


def test_settings_come_from_the_environment_and_given_ones_take_precedence() -> None:
    environment = {
        "MODEL_URI": "models:/fraud",
        f"{PREFIX}PORT": "9000",
        f"{PREFIX}PROCESSES": " 2 ",
        f"{PREFIX}COERCION": "mlflow",
        f"{PREFIX}MODEL_ENVIRONMENT": " HF_HOME, TOKENIZERS_PARALLELISM,,",
        f"{PREFIX}MAX_BODY_BYTES": "",
        "PATH": "/bin",
    }
    settings = read_settings(environment, port=8001, host=None)
    assert settings.models == (ModelAddress("fraud"),)
    assert (settings.port, settings.processes, settings.coercion) == (8001, 2, "mlflow")
    assert settings.model_environment == ("HF_HOME", "TOKENIZERS_PARALLELISM")
    assert settings.max_body_bytes == ServingSettings().max_body_bytes


def test_every_wrong_setting_is_listed() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        read_settings({f"{PREFIX}PORT": "many", f"{PREFIX}COERCION": "lax", f"{PREFIX}PROCESES": "2"})
    for part in (
        f"{PREFIX}PORT must be a whole number",
        f"{PREFIX}COERCION must be one of",
        f"{PREFIX}PROCESES: there is no such setting",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("HOST", "not a host", "must be an IP address or the name of a host"),
        ("HOST", "http://x", "must be an IP address or the name of a host"),
        ("DEFAULT_MODEL", "froud", "must be one of fraud, churn; got 'froud'"),
        ("MODEL_ENVIRONMENT", "A B", "must be names of environment variables.*got 'A B'"),
        ("MODEL_ENVIRONMENT", "A,C=1", "must be names of environment variables.*got 'C=1'"),
    ],
)
def test_a_value_that_would_be_ignored_or_fail_later_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"{PREFIX}{name} {message}"):
        read_settings({"MODEL_URI": "fraud,churn", f"{PREFIX}{name}": value})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost", "a_b.example.com."])
def test_hosts_are_accepted(host: str) -> None:
    assert read_settings({f"{PREFIX}HOST": host}).host == host


def test_the_docs_have_every_setting_with_its_default() -> None:
    page = Path(DOCS / "serving" / "settings.md").read_text(encoding="utf-8")
    described = dict(re.findall(r"^\| `([A-Z_]+)` \|([^|]*)\|", page, flags=re.M))
    for name, field in ServingSettings.model_fields.items():
        shown = described[name.upper()].strip()
        default = field.default
        expected = "" if default in ((), "") else str(default).lower() if isinstance(default, bool) else f"{default}"
        assert shown.strip("`") == (f"{default:g}" if isinstance(default, float) else expected), name
