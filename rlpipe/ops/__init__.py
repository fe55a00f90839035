"""The mathematics: pure functions of tensors. Knows torch alone."""
