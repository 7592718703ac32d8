"""Manifests that say something else, with their right fingerprint."""

from dataclasses import replace

from engines import manifest


def signed(folder, made):
    """Write a manifest with its right fingerprint."""
    (folder / manifest.FILE).unlink()
    made.write(folder)


def part(name, **changes):
    """Another network: files, or its inputs and outputs by name."""

    def change(made):
        component = made.components[name]
        sides = {
            side: {key: changes.get(key, spec) for key, spec in getattr(component, side).items()}
            for side in ("inputs", "outputs")
        }
        changed = replace(component, files=changes.get("files", component.files), **sides)
        return replace(made, components=dict(made.components) | {name: changed})

    return change
