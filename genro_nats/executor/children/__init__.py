"""The children of a process pool: started, chosen, watched, killed and replaced."""
