"""Texts written by language models: rewrites, and new prompts for the unlabelled pool."""
