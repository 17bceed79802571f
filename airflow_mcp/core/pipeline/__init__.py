"""ModelPipeline files: what is written, what is checked, what follows from it."""
