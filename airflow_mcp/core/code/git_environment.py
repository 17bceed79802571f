"""The environment of Git: no prompts, no settings of the machine, no visible secrets."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from airflow_mcp.core.code.source import SCHEMES
from airflow_mcp.core.contract import ENV_GIT_PASSWORD, ENV_GIT_USERNAME

_KEPT = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH")
_ANSWER = (
    f'!f() {{ test "$1" = get && printf \'username=%s\\npassword=%s\\n\' "${ENV_GIT_USERNAME}" "${ENV_GIT_PASSWORD}"; '
    "}; f"
)


def git_environment(url: str, inherited: Mapping[str, str], login: str = "", password: str = "") -> dict[str, str]:
    """Return an environment in which Git uses only allowed transports and writes its messages in English.

    A credential helper reads the credentials from variables, and only for the host of ``url``: a host that it redirects
    to gets none.

    :param url: checked address of the repository.
    :param inherited: environment to start from; Git's own variables are dropped, except those for SSH and TLS.
    :param login: user name; may be empty.
    :param password: password or token; may be empty.
    """
    env = {name: text for name, text in inherited.items() if not name.startswith("GIT_") or name in _KEPT}
    settings = {"credential.helper": ""}
    if login or password:
        parts = urlsplit(url)
        settings[f"credential.{parts.scheme}://{parts.netloc}.helper"] = _ANSWER
        env |= {ENV_GIT_USERNAME: login, ENV_GIT_PASSWORD: password}
    for number, (name, text) in enumerate(settings.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": text}
    if "GIT_SSH" not in env:
        env.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=20")
    return env | {
        "GIT_CONFIG_COUNT": str(len(settings)),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ALLOW_PROTOCOL": ":".join(SCHEMES),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "LC_ALL": "C",
    }
