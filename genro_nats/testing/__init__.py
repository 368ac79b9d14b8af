"""What users need to test code that calls pools."""
