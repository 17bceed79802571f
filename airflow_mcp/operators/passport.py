"""Give a model version its passport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from airflow_mcp.core.argument import flag, required_text, version_number
from airflow_mcp.core.registry.load_check import require_ready
from airflow_mcp.exceptions import InvalidArgumentError
from airflow_mcp.links.mlflow import MlflowModelVersionLink
from airflow_mcp.operators.base import ModelControlOperator
from airflow_mcp.registry.passports import issue_passport

if TYPE_CHECKING:
    from airflow.sdk import Context


class IssuePassportOperator(ModelControlOperator):
    """Sign what a model version was made from, and keep it with the version.

    A ``LoadCheckOperator`` does this by itself when ``[airflow_mcp] signing_conn_id`` is set. Use this operator where
    the load check runs without the key, for example on workers that may not sign, or after a gate that judged again.

    A version whose passport still fits keeps it: a retry changes nothing.

    XCom: ``model_name``, ``version``, ``passport`` (its digest), ``issued`` (whether this task signed it), ``unknown``
    (facts that are not recorded).

    :param model_name: registered model (templated).
    :param version: version that has passed its load check (templated).
    :param signing_conn_id: Airflow connection of type ``signing_key``; None takes ``[airflow_mcp] signing_conn_id``.
    :param dry_run: find the version, sign nothing, and skip (templated).
    """

    template_fields: Sequence[str] = ("model_name", "version", "dry_run")
    operator_extra_links = (MlflowModelVersionLink(),)
    ui_color = "#e8e3f5"

    def __init__(
        self,
        *,
        model_name: str,
        version: str,
        signing_conn_id: str | None = None,
        dry_run: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model_name = model_name
        self.version = version
        self.signing_conn_id = signing_conn_id
        self.dry_run = dry_run

    def act(self, context: Context) -> dict[str, Any]:
        """Issue the passport, unless the version has one that fits.

        :raises InvalidArgumentError: when no signing key is configured.
        :raises EvidenceError: when the version is not READY.
        :raises PassportError: when it has not passed a load check that recorded its files, or the records about it
            contradict each other; nothing is signed.
        :raises AuditUnavailableError: when the audit log does not answer; the version has no new passport.
        """
        name = required_text("model_name", self.model_name)
        version = self.hook.get_model_version(name, version_number("version", self.version))
        require_ready(version)
        self.mlflow_model_version_url = self.hook.model_version_url(name, version.version)
        if flag("dry_run", self.dry_run):
            raise AirflowSkipException(f"dry run: version {version.version} of {name!r} would get a passport")
        signer = self.signer
        if signer is None:
            raise InvalidArgumentError(
                "signing_conn_id must be the ID of a connection of type signing_key; got nothing, and [airflow_mcp] "
                "signing_conn_id is empty. Nothing was signed"
            )
        issued = issue_passport(self.hook, version, signer=signer, governance=self.governance, by=self.actor(context))
        self.log.info("Version %s of %s has passport %s", version.version, name, issued.statement.digest)
        return {
            "model_name": name,
            "version": version.version,
            "passport": issued.statement.digest,
            "issued": issued.is_new,
            "unknown": list(issued.statement.passport.unknown),
        }
