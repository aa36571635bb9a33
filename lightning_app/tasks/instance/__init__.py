"""Instance segmentation: each object's box, class and mask."""
