"""How texts reach the joint space: other wordings of captions, and the map of text features in closed form."""
