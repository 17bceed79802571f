"""The rules of a gate, one module each, and what a rule answers."""
