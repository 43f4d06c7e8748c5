"""From the scores of labels to a label: scale and offset, classes that contain others, examples, and abstention. Arrays only."""
