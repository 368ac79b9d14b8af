"""Pools in the homes of others: web frameworks."""
