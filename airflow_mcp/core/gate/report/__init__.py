"""The report of a gate as an HTML page."""
