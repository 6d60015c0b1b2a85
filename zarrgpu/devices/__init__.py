"""Where plans run: the host, or a CUDA device behind a narrow driver."""
