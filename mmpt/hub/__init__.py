"""The Hugging Face hub: fetch files at a pinned revision, push and load adapters (``python -m mmpt.hub``)."""
