"""Whether to retrain now, and why: the policy, the decision, and the ledger from which both can be checked."""
