"""Other words for the captions of the breast sections: how they are made, and how well a model answers those it has not seen."""
