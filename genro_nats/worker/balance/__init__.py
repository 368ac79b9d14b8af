"""Calls move to where children are free: between the workers of one pool."""
