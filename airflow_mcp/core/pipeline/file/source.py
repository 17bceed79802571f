"""The code, the data and the names in MLflow."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from airflow_mcp.core.data.dataset import TrackedBy
from airflow_mcp.core.evaluation.evidence import ModelType
from airflow_mcp.core.pipeline.file.fields import (
    ConnectionId,
    ExpandableText,
    RelativePath,
    RepositoryUrl,
    SpecModel,
    Text,
)


def _short_source(value: Any) -> Any:
    return {"repoUrl": value} if isinstance(value, str) else value


class SourceSpec(SpecModel):
    """Code in a Git repository, or in a folder beside the pipeline file."""

    repo_url: RepositoryUrl = Field(
        description="Git URL (https, http, ssh or file), or path of a folder, relative to the pipeline file."
    )
    revision: ExpandableText | None = Field(
        None, description="Branch, tag or full commit id. Default: the remote's default branch."
    )
    tags: Text | None = Field(
        None,
        description="Pattern of release tags, for example v*; the highest version is used. Not together with revision.",
    )
    path: RelativePath | None = Field(None, description="Folder of the code inside the repository.")
    git_conn_id: ConnectionId | None = Field(
        None, description="Airflow connection with login and password for the repository."
    )

    @model_validator(mode="after")
    def _one_way(self) -> SourceSpec:
        if self.revision and self.tags:
            raise ValueError("revision and tags exclude each other. Name a branch, tag or commit, or a pattern of tags")
        return self

    @property
    def is_remote(self) -> bool:
        """Whether it is a Git URL, and not a folder."""
        return "://" in self.repo_url or self.repo_url.startswith("git@")


SourceField = Annotated[SourceSpec, BeforeValidator(_short_source, json_schema_input_type=ExpandableText | SourceSpec)]
"""A source, or only its URL."""


class TrackedData(SpecModel):
    """Files that a Git repository tracks: each commit says which version of a file belongs to it."""

    kind: ClassVar[TrackedBy]
    """Name of the argument for these files, of PinDatasetOperator and DatasetVersionTrigger."""

    path: RelativePath = Field(description="Tracked file of training data.")
    evaluation_path: RelativePath | None = Field(None, description="Tracked file of evaluation data.")
    revision: ExpandableText | None = Field(
        None, description="Branch, tag or commit whose version of the files is used. Default: the default branch."
    )
    repo_url: RepositoryUrl | None = Field(
        None, description="Git URL of the repository. Default: the one of sourceCode."
    )
    git_conn_id: ConnectionId | None = Field(None, description="Airflow connection with access to the repository.")
    verify: bool = Field(True, description="Whether pinning checks that the remote has the content.")


class DvcData(TrackedData):
    """Files tracked by DVC in a Git repository."""

    kind = "dvc"

    remote: Text | None = Field(None, description="Name of the DVC remote. Default: the repository's default remote.")


class LfsData(TrackedData):
    """Files of a Git repository stored in Git LFS."""

    kind = "lfs"


class Data(SpecModel):
    """The data for training and evaluation; exactly one of root, uri, dvc and lfs says where they are."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "anyOf": [
                    {"required": list(both), "properties": {name: {"not": {"type": "null"}} for name in both}}
                    for both in combinations(("root", "uri", "dvc", "lfs"), 2)
                ]
            }
        }
    )

    root: ExpandableText | None = Field(
        None,
        description="Folder of versions, <root>/<version>/<file>, on a disk that Airflow's workers can read.",
    )
    version: ExpandableText = Field("latest", description="Version of root or uri; latest is the newest.")
    train: RelativePath | None = Field(None, description="File with training data in <root>/<version>.")
    evaluation: RelativePath | None = Field(None, description="File with evaluation data in <root>/<version>.")
    uri: ExpandableText | None = Field(
        None, description="File or object with training data, for example s3://bucket/a.csv."
    )
    evaluation_uri: ExpandableText | None = Field(None, description="File or object with evaluation data.")
    dvc: DvcData | None = Field(None, description="Files tracked by DVC.")
    lfs: LfsData | None = Field(None, description="Files stored in Git LFS.")
    target: Text | None = Field(None, description="Column with the label; required for evaluation data.")
    model_type: ModelType = Field(
        "classifier",
        description="Whether the model predicts classes or numbers, in the words of mlflow.evaluate.",
    )
    positive_label: str | int | float | bool | None = Field(
        None, description="Class that counts as positive. Default: the greater of two classes."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Data:
        given = [name for name in ("root", "uri", "dvc", "lfs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"data must have exactly one of root, uri, dvc and lfs; got {' and '.join(given) or 'none of them'}"
            )
        if self.root is not None and self.train is None:
            raise ValueError("data.train is missing: name the file with training data in <root>/<version>")
        if self.root is None and (self.train or self.evaluation):
            raise ValueError("data.train and data.evaluation belong to data.root. Use uri and evaluationUri here")
        if self.uri is None and self.evaluation_uri:
            raise ValueError("data.evaluationUri belongs to data.uri")
        if self.tracked is not None and self.version != "latest":
            raise ValueError(
                f"data.version belongs to data.root and data.uri. Use revision for data.{self.tracked.kind}"
            )
        if self.evaluates and self.target is None:
            raise ValueError("data.target is missing: name the column with the label, or leave the evaluation data out")
        return self

    @property
    def tracked(self) -> TrackedData | None:
        """The files in DVC or Git LFS; None for data of root and uri."""
        return self.dvc or self.lfs

    @property
    def evaluates(self) -> bool:
        """Whether there is data to evaluate on."""
        return bool(self.evaluation or self.evaluation_uri or (self.tracked and self.tracked.evaluation_path))


class Model(SpecModel):
    """The registered model and the experiment."""

    name: Text | None = Field(None, description="Registered model. Default: the pipeline's name.")
    experiment_name: Text | None = Field(None, description="MLflow experiment. Default: the pipeline's name.")
