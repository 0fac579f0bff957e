"""Training in PyTorch: one network for a set of widths, with exactly the quantizers of the hardware."""
