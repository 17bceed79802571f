"""Quality of a model in production: its logged predictions against labels that arrive later."""
