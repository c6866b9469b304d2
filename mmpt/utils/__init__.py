"""Small helpers without a domain: files, locks, processes, secrets, untrusted input."""
