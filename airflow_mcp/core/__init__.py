"""Pure decisions: plain data in, plain data out. No Airflow, no I/O, no clock (``now`` is passed in)."""
