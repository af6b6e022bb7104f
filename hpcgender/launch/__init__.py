"""A command to nodes, its own or a scheduler's: the only room that knows both training and jobs."""
