"""The model server: a light front that routes, batches and limits, and model processes that answer."""
