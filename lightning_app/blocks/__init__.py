"""Context operators: tensor in, tensor out, (B, C, H, W) -> (B, C, H, W). One paper, one file."""
