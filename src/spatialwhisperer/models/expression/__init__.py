"""Expression from images: what is predicted, the predictor, and how it is fitted."""
