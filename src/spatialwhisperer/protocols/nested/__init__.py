"""Recipes that are chosen on inner folds of the training sections, and reported on sections that no choice has seen."""
