"""What MLflow needs before it starts, for the service ``mlflow-migrate`` of docker-compose.yaml.

Brings the tables of MLflow's database up to date, or makes them in an empty one; where artifacts go to S3, makes the
bucket. Both can be repeated.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from urllib.parse import urlsplit

_STORE_SECONDS = 60
"""The S3 store starts at the same time; it may also be missing, and that must end with a message."""


def upgrade_tables(uri: str) -> None:
    """Bring the tables of MLflow up to date.

    :param uri: address of the database, without a password.
    :raises CalledProcessError: when that fails; MLflow has printed why.
    """
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True)


def make_bucket(artifacts: str, endpoint: str) -> str:
    """Make the bucket of the artifacts unless it exists.

    :param artifacts: ``s3://<bucket>`` or ``s3://<bucket>/<folder>``.
    :param endpoint: address of the S3 store.
    :return: what was done, as a sentence.
    :raises SystemExit: when the store does not answer.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError, EndpointConnectionError

    bucket = urlsplit(artifacts).netloc
    client = boto3.client("s3", endpoint_url=endpoint, config=Config(connect_timeout=5, retries={"max_attempts": 1}))
    deadline = time.monotonic() + _STORE_SECONDS
    while True:
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                raise
            client.create_bucket(Bucket=bucket)
            return f"bucket {bucket} was made"
        except EndpointConnectionError as error:
            if time.monotonic() > deadline:
                sys.exit(f"the S3 store does not answer: {error}. Start it with --profile s3, or unset STACK_ARTIFACTS")
            time.sleep(2)
        else:
            return f"bucket {bucket} exists"


if __name__ == "__main__":
    upgrade_tables(os.environ["MLFLOW_BACKEND_STORE_URI"])
    destination = os.environ["MLFLOW_ARTIFACTS_DESTINATION"]
    if destination.startswith("s3://"):
        print(make_bucket(destination, os.environ["MLFLOW_S3_ENDPOINT_URL"]))
