"""Decode heads: backbone levels in, logits out. One paper, one file."""
