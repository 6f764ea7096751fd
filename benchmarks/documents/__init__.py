"""Documents: speed, memory and quality of the documents server beside its peers."""
