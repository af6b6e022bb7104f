"""How this user's runs are, what became of them, and what can be done about it."""
