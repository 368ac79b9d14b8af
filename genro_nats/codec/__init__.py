"""Values, functions and errors as bytes, and back."""
