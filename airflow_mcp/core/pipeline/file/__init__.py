"""A ModelPipeline file as it is written."""
