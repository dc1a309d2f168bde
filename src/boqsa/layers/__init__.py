"""Blocks that several models share: convolution stacks and the position embedding. No model and no loss lives here."""
