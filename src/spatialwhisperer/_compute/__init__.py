"""Where and how things are computed: devices, precision, threads, kernels that are compiled, workers of a cluster."""
