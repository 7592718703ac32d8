"""Overscan: find the captions that a text-to-image diffusion model has likely memorized."""

from scanner.config import ScanConfig
from scanner.scan import ScanResult, scan

__all__ = ["ScanConfig", "ScanResult", "scan"]
