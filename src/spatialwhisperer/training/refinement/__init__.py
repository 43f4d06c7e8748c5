"""Contrastive refinement of an image head that was solved in closed form, and the rule by which it is kept."""
