"""The ModelPipeline file as typed, frozen models: plain data in, plain data out."""
