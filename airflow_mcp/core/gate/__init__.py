"""The evaluation gate: its policy, its judgement, and approvals of inconclusive results."""
