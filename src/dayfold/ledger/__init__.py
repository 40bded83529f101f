"""What is known of the images: splits, manifests, corrections."""
