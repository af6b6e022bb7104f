"""The engine that runs images through a trained model, for validation, evaluate, cam and predict."""
