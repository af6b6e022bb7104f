"""Images of any origin to predictions, by the decoders and the engine of evaluation."""
