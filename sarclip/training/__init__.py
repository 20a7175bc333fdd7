"""From pairs to weights: the recipe, the loader, augmentation, losses, many devices, states to resume from, and the loop."""
