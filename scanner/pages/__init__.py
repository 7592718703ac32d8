"""What a person is shown: self-contained pages, charts, and hostile text made safe."""
