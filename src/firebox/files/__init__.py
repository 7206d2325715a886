"""Floor 3: files of clients and packages on this machine, handled with suspicion: archives, folders."""
