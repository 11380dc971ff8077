"""What a request asks for: API, model, tokens, and where in its bytes the model is named."""
