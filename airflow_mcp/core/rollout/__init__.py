"""Rollouts as plain data: steps, state, what the servers measured, and what happens next."""
