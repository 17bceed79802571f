"""Messages to people and other systems about what became of tasks and runs."""
