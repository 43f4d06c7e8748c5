"""Every preset on the same real sections under the same protocol."""
