"""Texts written by language models: rewrites of a text, and new prompts for the unlabelled pool."""
