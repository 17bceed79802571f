"""ModelPipeline files as Dags: files are read, stubs written and plans rendered here."""
