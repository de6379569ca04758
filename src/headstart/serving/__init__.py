"""Many models on shared base models in one process: requests in, batches through the bases, heads side by side."""
