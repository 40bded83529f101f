"""What is given as images: found, checked in workers, sorted."""
