"""What is measured of a model: metrics, intervals, latency, importance."""
