"""What is measured: metrics as formulas over counts, and the charts drawn from them."""
