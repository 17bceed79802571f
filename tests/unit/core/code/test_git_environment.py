"""What Git is given: nothing of the machine's settings, and credentials for one host only."""

from __future__ import annotations

from airflow_mcp.core.code.git_environment import git_environment
from airflow_mcp.core.contract import ENV_GIT_PASSWORD

URL = "https://example.com/team/models.git"


def test_git_gets_nothing_of_the_machines_settings() -> None:
    env = git_environment(URL, {"PATH": "/bin", "GIT_DIR": "/x", "GIT_CONFIG_COUNT": "7", "GIT_SSL_CAINFO": "/ca"})
    assert (env["PATH"], env["GIT_SSL_CAINFO"]) == ("/bin", "/ca")
    assert "GIT_DIR" not in env
    assert (env["GIT_CONFIG_NOSYSTEM"], env["GIT_CONFIG_GLOBAL"]) == ("1", "/dev/null")
    assert (env["GIT_TERMINAL_PROMPT"], env["LC_ALL"]) == ("0", "C")
    assert env["GIT_ALLOW_PROTOCOL"] == "https:http:ssh:file"
    assert env["GIT_CONFIG_COUNT"] == "1"


def test_credentials_are_for_the_host_only_and_not_part_of_a_setting() -> None:
    env = git_environment(URL, {}, "bob", "s3cret")
    settings = {env[f"GIT_CONFIG_KEY_{number}"]: env[f"GIT_CONFIG_VALUE_{number}"] for number in range(2)}
    assert set(settings) == {"credential.helper", "credential.https://example.com.helper"}
    assert [name for name, text in env.items() if "s3cret" in text] == [ENV_GIT_PASSWORD]


def test_an_ssh_command_of_the_machine_is_kept() -> None:
    assert "BatchMode=yes" in git_environment(URL, {})["GIT_SSH_COMMAND"]
    assert git_environment(URL, {"GIT_SSH_COMMAND": "ssh -i /k"})["GIT_SSH_COMMAND"] == "ssh -i /k"
    assert "GIT_SSH_COMMAND" not in git_environment(URL, {"GIT_SSH": "/usr/bin/plink"})
