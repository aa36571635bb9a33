"""Pictures with the objects in them."""
