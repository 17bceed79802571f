"""The registry: moves of aliases, their history, stages, load checks, copies and events."""
