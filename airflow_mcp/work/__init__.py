"""The work plane: runs where models are trained and judged, and never imports Airflow."""
