"""The evaluation gate: rules of every kind, the judgement, and the report."""
