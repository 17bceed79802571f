"""Approvals: who is asked before a model is released, which votes count, and when somebody is reminded."""
