"""Where things are computed: devices of torch, threads, and kernels that are compiled."""
