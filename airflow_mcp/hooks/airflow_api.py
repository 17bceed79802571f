"""A client of Airflow's REST API: what a task cannot ask its supervisor, and what is asked outside tasks."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from airflow_mcp.exceptions import AirflowApiError

_TIMEOUT_SECONDS = 30
_PAGE = 100
_MEANING = {
    httpx.codes.UNAUTHORIZED: "the credentials are wrong or have expired. Check user and password, or get a new token",
    httpx.codes.FORBIDDEN: "the user may not do this (role Op may), or the token is not valid",
    httpx.codes.NOT_FOUND: "it does not exist. Is this the address of Airflow 3.3 or newer?",
    httpx.codes.CONFLICT: "somebody else changed it at the same time. Look at it again, then repeat",
}


class AirflowApi:
    """A connection to the API server, for a ``with`` block.

    :param url: ``http`` or ``https`` URL.
    :param token: bearer token; when it is empty, user and password are exchanged for one.
    :param user: user name.
    :param password: password; sent once, to get a token.
    :param transport: transport of httpx; None uses the network.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        user: str = "",
        password: str = "",
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT_SECONDS, transport=transport)
        self._token, self._user, self._password = token, user, password

    def __enter__(self) -> Self:
        """Get a token if none was given.

        :raises AirflowApiError: when Airflow does not answer, or refuses the credentials.
        """
        try:
            self._log_in()
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._client.close()

    def asset_names(self, part: str) -> dict[str, int]:
        """Return the ids of assets by their names.

        :param part: text that the names contain.
        """
        found: dict[str, int] = {}
        while True:
            given = {"name_pattern": part, "limit": _PAGE, "offset": len(found), "order_by": "id"}
            page = self._request("GET", "/api/v2/assets", params=given)
            found |= {str(asset["name"]): int(asset["id"]) for asset in page["assets"]}
            if not page["assets"] or len(found) >= page["total_entries"]:
                return found

    def find(self, path: str, **params: str | int) -> Any:
        """Read what an address below ``/api/v2`` holds; None when it does not exist.

        :param path: path of the address; its parts are quoted with :func:`part`.
        :param params: parameters of the query.
        """
        answer = self._send("GET", path, params=params)
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._checked(answer)

    def find_all(self, path: str, key: str, **params: str) -> list[dict[str, Any]]:
        """Read every page of a list.

        :param path: as for :meth:`find`.
        :param key: name of the list in an answer.
        :param params: parameters of the query.
        """
        found: list[dict[str, Any]] = []
        while True:
            page = self._request("GET", path, params={**params, "limit": _PAGE, "offset": len(found)})
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def who_am_i(self) -> tuple[str, str]:
        """Return name and id of the account that the credentials are of.

        The address is one of Airflow's own pages: the public API has none that says it.
        """
        found = self._request("GET", "/ui/auth/me")
        return str(found["username"]), str(found["id"])

    def state_store(self, asset_id: int) -> AssetStateStore:
        """Return the state store of an asset.

        :param asset_id: id of the asset.
        """
        return AssetStateStore(self, asset_id)

    def get_state(self, asset_id: int, key: str) -> Any:
        """Read a value of the state store of an asset; None when there is none."""
        answer = self._send("GET", _state_path(asset_id, key))
        return None if answer.status_code == httpx.codes.NOT_FOUND else self._checked(answer)["value"]

    def set_state(self, asset_id: int, key: str, value: Any) -> None:
        """Write a value of the state store of an asset."""
        self._checked(self._send("PUT", _state_path(asset_id, key), json={"value": value}))

    def _log_in(self) -> None:
        if not self._token:
            body = {"username": self._user, "password": self._password}
            self._token = str(self._request("POST", "/auth/token", json=body)["access_token"])
        self._client.headers["Authorization"] = f"Bearer {self._token}"

    def _request(self, method: str, path: str, **given: Any) -> Any:
        return self._checked(self._send(method, path, **given))

    def _send(self, method: str, path: str, **given: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **given)
        except httpx.HTTPError as error:
            raise AirflowApiError(
                f"Airflow at {self.url} does not answer {method} {path}: {error}. Nothing was changed"
            ) from None

    def _checked(self, answer: httpx.Response) -> Any:
        asked = f"{answer.request.method} {answer.request.url.path}"
        if answer.is_success:
            if answer.status_code == httpx.codes.NO_CONTENT:
                return None
            try:
                return answer.json()
            except ValueError:
                raise AirflowApiError(
                    f"{self.url} answered {asked} with something that is not JSON. Is it the address of Airflow?",
                    answer.status_code,
                ) from None
        meaning = _MEANING.get(httpx.codes(answer.status_code), "see the log of Airflow's API server")
        raise AirflowApiError(
            f"Airflow at {self.url} answered {asked} with {answer.status_code}: {meaning}{_detail(answer)}",
            answer.status_code,
        )


class AssetStateStore:
    """The state store of one asset, over the REST API.

    :param api: connection to the API server.
    :param asset_id: id of the asset.
    """

    def __init__(self, api: AirflowApi, asset_id: int) -> None:
        self._api, self._asset_id = api, asset_id

    def get(self, key: str, default: Any = None) -> Any:
        """Read a value."""
        value = self._api.get_state(self._asset_id, key)
        return default if value is None else value

    def set(self, key: str, value: Any) -> None:
        """Write a value."""
        self._api.set_state(self._asset_id, key, value)


def part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")


def _state_path(asset_id: int, key: str) -> str:
    return f"/api/v2/assets/{asset_id}/state-store/{part(key)}"


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f". Details: {str(detail)[:300]}"
