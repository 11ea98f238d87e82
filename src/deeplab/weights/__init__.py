"""Weights of every origin, turned into a configuration and a state dict of ours."""
