"""Arguments of the command line of the protocols: each file holds the commands of a group."""
