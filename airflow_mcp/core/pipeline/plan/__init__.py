"""The tasks that follow from a ModelPipeline file."""
