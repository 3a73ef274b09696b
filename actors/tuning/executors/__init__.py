"""How a worker runs a trial: inline, in a persistent child process, or in a fresh fork. Empty, since a zygote starts here."""
