"""What a model version was made from, as a signed statement that anybody can check without a server."""
