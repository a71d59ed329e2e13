"""VRAM: traces of allocations, a simulated CUDA caching allocator, and the cards it fits on."""
