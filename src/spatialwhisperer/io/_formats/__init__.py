"""One module for each way in which pixels are stored; all give levels that are read when they are needed."""
