"""The demonstration that ``make demo`` runs, and the local services that the tests use too."""
