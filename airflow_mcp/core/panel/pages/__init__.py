"""The pages as functions from facts to HTML, without a template engine."""
