"""Puts a certificate in force that an operator dropped on the host."""
