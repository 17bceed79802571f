"""A model process of the model server."""
