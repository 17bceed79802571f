"""Whose signature a release tag needs: keys in a policy, and what ssh-keygen and gpg are given of them."""

from __future__ import annotations

import pytest

from airflow_mcp.core.code.tag_signers import TagSigners, why_no_key
from airflow_mcp.exceptions import PipelineSpecError
from tests.support.approvals import POLICY, bank

SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB7nAcJYqzVtTz0Vd3dUmsSPoLxN1m3x0dT9bY8f0e2q"
GPG = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDME\n-----END PGP PUBLIC KEY BLOCK-----"
LENA = "gitEmails: [Lena@bank.example]"
SIGNED = POLICY.replace(LENA, f'{LENA}, signingKeys: ["{SSH} lena"]')
RULE = '  releaseTags: [{models: ["fraud*"], signedBy: %s}]\n'


def test_a_policy_names_the_signers_of_the_tags_of_some_models() -> None:
    spec = bank(SIGNED + RULE % "[role:algorithm-lead]").spec
    signers = spec.tag_signers("fraud_eu")
    assert signers is not None
    assert {person: list(keys) for person, keys in signers.keys.items()} == {
        "lena": [f"{SSH} lena"],
        "luis": [],
        "rita": [],
    }
    assert spec.tag_signers("churn") is None
    assert bank().spec.tag_signers("fraud_eu") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SIGNED + RULE % "[role:leads]", "must be people of this policy, or role:<role>; got 'role:leads'"),
        (SIGNED + RULE % "[algorithm-lead]", "must be people of this policy, or role:<role>; got 'algorithm-lead'"),
        (SIGNED + RULE % "[luis]", "must name somebody with signingKeys: nobody could sign a release"),
        (SIGNED.replace(SSH, "AAAAC3Nz"), "must be a line of an SSH public key"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(PipelineSpecError) as caught:
        bank(text)
    (problem,) = caught.value.problems
    assert problem.message.startswith(message)


@pytest.mark.parametrize("key", [SSH, f"{SSH} lena@bank.example", "sk-ssh-ed25519@openssh.com AAAA", f"{GPG}\n"])
def test_public_keys_of_both_kinds_are_read(key: str) -> None:
    assert why_no_key(key) == ""


def test_a_private_key_is_refused_and_not_shown() -> None:
    problem = why_no_key("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----")
    assert problem.startswith("must be a public key; got a private one")
    assert "b3Blbn" not in problem


def test_a_comment_of_a_key_cannot_add_an_allowed_signer() -> None:
    signers = TagSigners({"lena": [f"{SSH} lena", GPG, f"{SSH} x\n* ssh-ed25519 BBBB"], "luis": [SSH]})
    assert signers.allowed_signers == f'person0 namespaces="git" {SSH}\nperson1 namespaces="git" {SSH}\n'
    assert signers.gpg_keys == f"{GPG}\n"
