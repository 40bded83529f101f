"""What is known of the images: bytes, splits, manifests, corrections, and their history."""
