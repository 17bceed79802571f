"""The environment variables of a workload: what the user gave, the dataset, and the logins of repositories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow_mcp.core import contract
from airflow_mcp.core.code.source import CodeSource
from airflow_mcp.core.credential_shapes import is_credential
from airflow_mcp.core.data.dataset import repository_data
from airflow_mcp.core.data.pin import DatasetPin
from airflow_mcp.core.workload.connection_values import ConnectionValue
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.hooks.git import GitRemote

_CODE_LOGIN = (contract.ENV_GIT_USERNAME, contract.ENV_GIT_PASSWORD)
_DATA_LOGIN = (contract.ENV_DATA_GIT_USERNAME, contract.ENV_DATA_GIT_PASSWORD)


def user_environment(
    env: Mapping[str, str] | None, connection_env: Sequence[ConnectionValue], owned: set[str]
) -> dict[str, str]:
    """Check the variables that a user gave, and return those with plain values.

    :param env: variables of the argument ``env``.
    :param connection_env: variables of the argument ``connection_env``.
    :param owned: names that the operator sets itself.
    :raises InvalidArgumentError: when a name is taken or named twice, or a value is not text or may be a credential.
    """
    given = dict(env or {})
    from_connections = {value.variable for value in connection_env}
    for argument, names in (("env", given.keys()), ("connection_env", from_connections)):
        if taken := ", ".join(sorted(owned & names)):
            raise InvalidArgumentError(f"{argument} sets {taken}, which the operator sets itself. Remove them")
    if twice := ", ".join(sorted(given.keys() & from_connections)):
        raise InvalidArgumentError(f"env and connection_env both set {twice}. Name each in one of them only")
    wrong = sorted(name for name, value in given.items() if not isinstance(value, str))
    if wrong:
        raise InvalidArgumentError(f"env has values that are not strings: {', '.join(wrong)}. Write them as strings")
    if found := sorted(name for name, value in given.items() if is_credential(name, value)):
        raise InvalidArgumentError(
            f"env must have no credential; got {', '.join(found)}, whose value is not shown. Use connection_env, or "
            "kubernetes.secrets"
        )
    return given


def dataset_environment(pin: DatasetPin | None) -> dict[str, str]:
    """Return the variables that tell a script which data to use."""
    if pin is None:
        return {}
    named = {
        contract.ENV_DATA_PATH: pin.uri,
        contract.ENV_DATA_VERSION: pin.version,
        contract.ENV_DATA_HASH: pin.hash,
    }
    return {name: value for name, value in named.items() if value}


def code_login(code: CodeSource) -> dict[str, str]:
    """Return the credentials that open the repository of the code, by the names of their variables."""
    return _git_login(code.url, code.connection, _CODE_LOGIN)


def data_login(*pins: DatasetPin | None) -> dict[str, str]:
    """Return the credentials that open the repositories of DVC data, by the names of their variables.

    :param pins: pinned data of any kind.
    :raises InvalidArgumentError: when they need more than one connection, or it does not fit a repository.
    """
    found = [data for pin in pins if pin and (data := repository_data(pin.uri)) and data.connection]
    if len({data.connection for data in found}) > 1:
        names = ", ".join(sorted({data.connection for data in found}))
        raise InvalidArgumentError(f"the DVC data of one step must need a single connection; got {names}")
    return {name: text for data in found for name, text in _git_login(data.repo, data.connection, _DATA_LOGIN).items()}


def _git_login(url: str, connection: str, names: tuple[str, str]) -> dict[str, str]:
    given = zip(names, GitRemote(url, connection or None).credentials(), strict=True)
    return {name: value for name, value in given if value}
