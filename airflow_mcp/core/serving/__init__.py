"""Decisions of the model server as functions of plain data."""
