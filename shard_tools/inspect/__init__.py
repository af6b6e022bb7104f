"""`shard-tools inspect`: tables of a packed data set's labels, a contact sheet, a page, one sample."""
