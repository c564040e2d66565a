"""The training loop: objectives, trainer, callbacks, and what it needs before and after."""
