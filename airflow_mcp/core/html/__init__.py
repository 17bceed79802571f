"""Pages and drawings of reports, without a template engine."""
