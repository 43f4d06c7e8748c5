"""The mouse olfactory bulb: layers, few labels, spatial domains and expression in a tissue that no model here was made for."""
