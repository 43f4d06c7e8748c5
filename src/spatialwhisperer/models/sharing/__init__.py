"""Passing models on: what they hold and under which licences, their card, and the Hugging Face hub."""
