"""Looks at a packed data set: tables of its labels, a contact sheet, a web page, one sample."""
