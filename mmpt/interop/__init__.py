"""Exchange with others: the hub, converted files, several adapters in one batch."""
