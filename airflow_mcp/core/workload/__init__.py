"""What runs, as plain data: workloads, pods, their configuration and what they ended with."""
