"""Train a classifier on the breast cancer data with PyTorch, on as many pods as there are.

Every pod runs this script on its own share of the rows. PyTorch averages the gradients over all pods, so each has the
same model at the end, and rank 0 logs it: as a model of scikit-learn, for which the pods that serve it need no PyTorch.
"""

from __future__ import annotations

import os

import mlflow
import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, distributed
from torch.nn import Linear
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.parallel import DistributedDataParallel

STEPS = 60


def total(value: float) -> float:
    """Return the sum of a number over all pods."""
    summed = torch.tensor(float(value))
    distributed.all_reduce(summed)
    return summed.item()


def gradient(model: torch.nn.Module, rows: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of the weights on this pod's rows; of a distributed model, the mean over all pods."""
    model.zero_grad()
    binary_cross_entropy_with_logits(model(rows)[:, 0], labels).backward()
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


def train(rows: Tensor, labels: Tensor) -> DistributedDataParallel:
    """Return a model that is trained on the rows of all pods."""
    # [START howto_train_torch]
    model = DistributedDataParallel(Linear(rows.shape[1], 1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(STEPS):
        optimiser.zero_grad()
        binary_cross_entropy_with_logits(model(rows)[:, 0], labels).backward()  # averages the gradients
        optimiser.step()
    # [END howto_train_torch]
    return model


def gaps(model: DistributedDataParallel, rows: Tensor, labels: Tensor) -> dict[str, float]:
    """Return how far the gradient that PyTorch computes is from the mean of the pods' own, and from this pod's own."""
    alone = Linear(rows.shape[1], 1)
    alone.load_state_dict(model.module.state_dict())
    own, together = gradient(alone, rows, labels), gradient(model, rows, labels)
    mean = own.clone()
    distributed.all_reduce(mean)
    mean /= distributed.get_world_size()
    return {
        "gap_to_mean_gradient": total(float((together - mean).abs().max())),
        "gap_to_own_gradient": total(float((together - own).abs().max())),
    }


def as_scikit_learn(scaler: StandardScaler, layer: Linear) -> Pipeline:
    """Return the trained layer as a classifier that takes rows as they were measured."""
    classifier = LogisticRegression()
    classifier.classes_ = np.array([0, 1])
    classifier.coef_, classifier.intercept_ = np.array(layer.weight.tolist()), np.array(layer.bias.tolist())
    return make_pipeline(scaler, classifier)


def main() -> None:
    """Train on this pod's rows; rank 0 logs metrics and the model to the given MLflow run."""
    # [START howto_join_torch]
    distributed.init_process_group("gloo")  # reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; "nccl" with GPUs
    rank, pods = distributed.get_rank(), distributed.get_world_size()
    # [END howto_join_torch]
    features, truth = load_breast_cancer(return_X_y=True)
    scaler = StandardScaler().fit(features)
    rows = torch.tensor(scaler.transform(features)[rank::pods].tolist())
    labels = torch.tensor(truth[rank::pods].tolist()).float()
    model = train(rows, labels)
    metrics = {"pods": total(1), "rows": total(len(rows)), **gaps(model, rows, labels)}
    # [START howto_log_torch]
    if rank == 0:
        with mlflow.start_run():  # continues the run named by MLFLOW_RUN_ID
            trained = as_scikit_learn(scaler, model.module)
            mlflow.log_metrics({**metrics, "training_accuracy": trained.score(features, truth)})
            mlflow.sklearn.log_model(trained, name="model", input_example=features[:3])
    else:
        mlflow.MlflowClient().log_metric(os.environ["AIRFLOW_MCP_RUN_ID"], f"rows_of_rank_{rank}", len(rows))
    distributed.barrier()  # a pod that has ended answers no other: all leave together
    # [END howto_log_torch]
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
