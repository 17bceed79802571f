"""Features of a Feast feature store: those that trainings read, and whether the online store has the same."""
