"""``python -m airflow_mcp.cli``, for when the script ``airflow-mcp`` is not on the path."""

import sys

from airflow_mcp.cli import main

if __name__ == "__main__":
    sys.exit(main())
