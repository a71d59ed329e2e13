"""PyTorch's CUDA caching allocator, simulated: arithmetic, never torch."""
