"""Runs functions on a cluster of Spark or Dask that the user has."""
