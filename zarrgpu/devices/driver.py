"""The narrow seam between `CudaDevice` and the GPU.

Everything that the CUDA path asks of CUDA goes through one `Driver`: arenas, copies, events, kernel
launches and library decoders, always on a batch. The real one is `cupy_driver.CupyDriver`; the
tests have a second, which runs the same ``kernels/*.cu`` on the CPU (tests/emulator).
"""
