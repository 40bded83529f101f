"""What the model is for: predict, export, audit."""
