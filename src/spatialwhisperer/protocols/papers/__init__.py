"""One command for each paper: from a folder of its data to its table, with the published numbers beside."""
