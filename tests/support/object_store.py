"""An S3 server for the tests, from the package ``moto``: objects in memory, any credentials are accepted."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from tests.support.services import LOOPBACK, Service, free_port

XCOM_BACKEND = "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend"


def xcom_settings(address: str) -> dict[str, str]:
    """Return the settings with which Airflow puts every XCom into an object store.

    :param address: of the store; with ``file://``, a folder that all of Airflow sees.
    """
    return {
        "AIRFLOW__CORE__XCOM_BACKEND": XCOM_BACKEND,
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": address,
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
    }


class S3Server(Service):
    """Moto's S3 server on loopback; its objects are gone when it stops.

    :param folder: folder for its log.
    """

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        super().__init__(
            "s3",
            [sys.executable, "-m", "moto.server", "--host", LOOPBACK, "--port", str(port)],
            folder=folder,
            health_url=f"{self.url}/moto-api/",
        )

    @property
    def client_env(self) -> Mapping[str, str]:
        """Variables that lead MLflow and boto3 to this server."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def bucket(self, name: str) -> str:
        """Create a bucket and return its URI."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=30):
            return f"s3://{name}"

    def read(self, bucket: str, key: str) -> bytes:
        """Return an object."""
        import boto3

        login = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=self.url, **login)
        return bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())
