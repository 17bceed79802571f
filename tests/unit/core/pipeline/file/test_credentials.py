"""Credentials in plain text: refused without being repeated."""

from __future__ import annotations

import pytest

from airflow_mcp.dag_rendering.loader import load_pipeline_file
from tests.support.pipeline_files import CHURN, Write, changed, problems

MISTAKES = [
    (
        "https://github",
        "https://me:hunter2@github",
        "11:14: spec.sourceCode.repoUrl: the URL contains a password. Keep the password in an Air",
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "problem"), MISTAKES, ids=[problem.split(": ")[1] for _, _, problem in MISTAKES]
)
def test_a_url_with_a_password_is_refused_in_every_environment(write: Write, old: str, new: str, problem: str) -> None:
    found = problems(write("churn.yaml", changed(CHURN, old, new)))
    assert any(each.startswith(f"churn.yaml:{problem}") for each in found), found


class TestProd:
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("  env:\n", "  env:\n    DB_PASSWORD: hunter2\n", "36:18: spec.env.DB_PASSWORD: looks like a credential"),
            ("    seed: 7", "    apiKey: hunter2\n    seed: 7", "19:13: spec.config.apiKey: looks like a credential"),
            ('"--epochs", "3"', '"--token=hunter2"', "16:15: spec.arguments[0]: looks like a credential"),
            ("lr: 1e-3", f"note: ghp_{'a1' * 18}", "18:22: spec.config.training.note: looks like a credential"),
        ],
    )
    def test_refuses_plaintext_secrets_and_repeats_no_secret(
        self, write: Write, old: str, new: str, problem: str
    ) -> None:
        path = write("churn.yaml", changed(CHURN, old, new))
        found = problems(path, "prod")
        assert any(each.startswith(f"churn.yaml:{problem}") for each in found), found
        assert "hunter2" not in "".join(found)

    def test_words_of_a_tokenizer_are_no_secrets(self, write: Write) -> None:
        path = write("churn.yaml", changed(CHURN, "seed: 7", "pad_token: <pad>\n    max_tokens: '512'\n    seed: 7"))
        assert load_pipeline_file(path, "prod", variables={}).config is not None
