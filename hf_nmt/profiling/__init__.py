"""Where the time and the memory of a training and of its model go."""
