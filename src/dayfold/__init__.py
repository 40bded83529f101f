"""dayfold: fold each day's new images into the classifier, and keep every day reproducible."""

__version__ = "0.1.0"
