"""Model servers side by side: the contenders, the load and what it costs."""
