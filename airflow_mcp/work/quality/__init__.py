"""Logged predictions of the model server, judged by labels that arrive later."""
