"""How the bundled model and its labelled captions are made; driven by `tools/train_demo_model.py`."""
