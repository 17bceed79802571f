"""Past decisions, made again from what was recorded: the gate's judgement, and the move that followed."""
