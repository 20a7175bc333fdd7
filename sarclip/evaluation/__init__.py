"""What an encoder knows: features, retrieval, recognition, and what the protocol hides. Each evaluator takes features and gives metrics."""
