"""Model Control Plane for Apache Airflow: train, judge, register, promote, watch and retrain models."""

from __future__ import annotations

__version__ = "0.1.0"
