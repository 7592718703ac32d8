"""The settings that change the numbers, and nothing else: batch size, backend and progress are arguments."""

import hashlib
import json
from dataclasses import asdict, dataclass

from scanner.errors import ScannerError


@dataclass(frozen=True)
class ScanConfig:
    """What to compute for each prompt.

    `guidance_scale`: 1 = no guidance. `num_inference_steps`: the sampler's grid, of which only the first
    `first_steps` run. `seeds`: one starting noise each, the same for every prompt.
    """

    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    first_steps: int = 1
    seeds: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ScannerError(f"seeds {self.seeds}: needed one or more different numbers from 0 up")
        if not 1 <= self.first_steps <= self.num_inference_steps:
            raise ScannerError(f"first_steps {self.first_steps}: needed 1 to {self.num_inference_steps}")
        if not self.guidance_scale >= 1:
            raise ScannerError(f"guidance_scale {self.guidance_scale}: needed 1 (no guidance) or more")

    def scan_id(self, manifest_fingerprint: str, backend: str, precision: str) -> str:
        """blake2b-128 of all that the scores depend on, so that scores of different engines never mix."""
        what = asdict(self) | {"manifest": manifest_fingerprint, "backend": backend, "precision": precision}
        canonical = json.dumps(what, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
