"""Hooks: the only readers of Airflow connections and the only builders of clients."""
