"""From a ModelPipeline to the tasks of its Dag: plain data in, plain data out."""
