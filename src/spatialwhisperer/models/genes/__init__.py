"""Gene encoders, one file per kind. The entry point is `spatialwhisperer.models.gene_encoders`."""
