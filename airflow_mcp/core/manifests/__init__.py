"""The model server as objects of Kubernetes: plain data, made without a cluster and without a client."""
