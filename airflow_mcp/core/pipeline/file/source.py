"""Where code, config and data come from."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from airflow_mcp.core.data.dataset import TrackedBy
from airflow_mcp.core.evaluation.evidence import ModelType
from airflow_mcp.core.pipeline.file.fields import ConnectionId, ExpandableText, RelativePath, SpecModel, Text


def _short_source(value: Any) -> Any:
    return {"repoUrl": value} if isinstance(value, str) else value


class SourceSpec(SpecModel):
    """Code in a Git repository, or in a folder beside the pipeline file."""

    repo_url: ExpandableText = Field(
        description="Git URL (https, http, ssh, git or file), or the path of a folder relative to the pipeline file."
    )
    revision: ExpandableText | None = Field(
        None, description="Branch, tag or full commit id. Default: the branch that the remote calls its default."
    )
    tags: Text | None = Field(
        None,
        description="Pattern of release tags, for example v*; the newest by version order is taken. Not with revision.",
    )
    path: RelativePath | None = Field(None, description="Folder inside the repository that the script is in.")
    git_conn_id: ConnectionId | None = Field(
        None, description="Airflow connection whose login and password open the repository."
    )

    @model_validator(mode="after")
    def _one_way(self) -> SourceSpec:
        if self.revision and self.tags:
            raise ValueError("revision and tags exclude each other: name a branch, tag or commit, or a pattern of tags")
        return self

    @property
    def is_remote(self) -> bool:
        """Whether it is a Git URL, and not a folder."""
        return "://" in self.repo_url or self.repo_url.startswith("git@")


SourceField = Annotated[SourceSpec, BeforeValidator(_short_source, json_schema_input_type=ExpandableText | SourceSpec)]
"""A source, or its URL alone."""


class TrackedData(SpecModel):
    """Files beside a Git repository, whose commits say which version of each there is."""

    kind: ClassVar[TrackedBy]
    """Argument of the operator that pins the files, and of the trigger that watches them."""

    path: RelativePath = Field(description="Tracked file of training data.")
    evaluation_path: RelativePath | None = Field(None, description="Tracked file of evaluation data.")
    revision: ExpandableText | None = Field(
        None, description="Branch, tag or commit that says which version. Default: the repository's default branch."
    )
    repo_url: ExpandableText | None = Field(None, description="Git URL of the repository. Default: sourceCode.")
    git_conn_id: ConnectionId | None = Field(None, description="Airflow connection that opens the repository.")
    verify: bool = Field(True, description="Whether the content must be found in the remote when it is pinned.")


class DvcData(TrackedData):
    """Files tracked by DVC in a Git repository."""

    kind = "dvc"

    remote: Text | None = Field(None, description="Name of the DVC remote. Default: the repository's own default.")


class LfsData(TrackedData):
    """Files of a Git repository that Git LFS keeps."""

    kind = "lfs"


class Data(SpecModel):
    """The data a model is trained and judged on; exactly one of root, uri, dvc and lfs says where it is."""

    root: ExpandableText | None = Field(
        None, description="Folder of versions, <root>/<version>/<file>, on a disk that Airflow's workers can read."
    )
    version: ExpandableText = Field("latest", description="Version below root or of uri; latest is the newest.")
    train: RelativePath | None = Field(None, description="File of training data below <root>/<version>.")
    evaluation: RelativePath | None = Field(None, description="File of evaluation data below <root>/<version>.")
    uri: ExpandableText | None = Field(
        None, description="File or object of training data, for example s3://bucket/a.csv."
    )
    evaluation_uri: ExpandableText | None = Field(None, description="File or object of evaluation data.")
    dvc: DvcData | None = Field(None, description="Files tracked by DVC.")
    lfs: LfsData | None = Field(None, description="Files that Git LFS keeps.")
    target: Text | None = Field(None, description="Column of the label; needed to evaluate on data.")
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
                f"data has {' and '.join(given) or 'none'} of root, uri, dvc and lfs; allowed: exactly one"
            )
        if self.root is not None and self.train is None:
            raise ValueError("data.train is missing: name the file of training data below <root>/<version>")
        if self.root is None and (self.train or self.evaluation):
            raise ValueError("data.train and data.evaluation belong to data.root; write uri and evaluationUri here")
        if self.uri is None and self.evaluation_uri:
            raise ValueError("data.evaluationUri belongs to data.uri")
        if self.tracked is not None and self.version != "latest":
            raise ValueError(
                f"data.version belongs to data.root and data.uri; write revision for data.{self.tracked.kind}"
            )
        if self.evaluates and self.target is None:
            raise ValueError("data.target is missing: name the column of the label, or leave the evaluation data out")
        return self

    @property
    def tracked(self) -> TrackedData | None:
        """The files that DVC or Git LFS keeps; None for data of root and uri."""
        return self.dvc or self.lfs

    @property
    def evaluates(self) -> bool:
        """Whether there is data to evaluate on."""
        return bool(self.evaluation or self.evaluation_uri or (self.tracked and self.tracked.evaluation_path))


class Model(SpecModel):
    """Names in MLflow."""

    name: Text | None = Field(None, description="Registered model. Default: the pipeline's name.")
    experiment_name: Text | None = Field(None, description="MLflow experiment. Default: the pipeline's name.")
