"""What is given as images: found, checked, sorted."""
