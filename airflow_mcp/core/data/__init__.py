"""Versions of data: pins, and what the tools that keep them write."""
