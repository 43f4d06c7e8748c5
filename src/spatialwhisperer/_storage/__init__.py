"""Files and folders of other origin: what may be read of them, and how a folder is put into its place."""
