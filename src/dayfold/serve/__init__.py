"""What the model is for: any day's by name, asked, handed on, or asked which labels it doubts."""
