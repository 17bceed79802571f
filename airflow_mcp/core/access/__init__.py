"""Access: who may do what to which model in which environment, by one policy document."""
