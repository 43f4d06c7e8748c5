"""The command line: slides in, labels, files for QuPath and reports out, without a line of Python."""
