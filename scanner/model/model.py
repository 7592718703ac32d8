"""The one door to a model: a value that names all that scores depend on, opened where it is used."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from engines import Bundle, EngineError, open_bundle
from scanner.config import ScanConfig
from scanner.copies import here
from scanner.diffusion.baselines import Prior, Reference
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.prediction import Array
from scanner.diffusion.start import (
    PRIOR_SEEDS,
    Start,
    Watch,
    predict_base,
    predict_prior,
    predict_reference,
    start,
    unwatched,
)
from scanner.identity import captions_fingerprint
from scanner.model.base import check
from scanner.model.batch_size import fastest
from scanner.model.cache import cached
from scanner.model.scorer import Scorer
from scanner.model.usual import usual_noises, usual_timesteps

CALL = 65536  # latent elements of a call: in smaller ones the cost per call shows beside a small UNet


@dataclass(frozen=True)
class Prepared:
    """What a model computes before its first prompt.

    `scan_id`: of the model as it was opened; `provider`: what truly runs it, in the runtime's words; `start`: what all
    prompts share; `chunk`: prompts per call of the scorer; `canaries`: [canary, scores...], what the engine gives for a
    few fixed prompts.
    """

    scan_id: str
    provider: str
    start: Start
    chunk: int
    canaries: pl.DataFrame


@dataclass(frozen=True)
class Model:
    """A bundle or checkpoint, what runs it, and the settings of its scores: a value, small until it is prepared.

    `reference`: ordinary captions, for the scores that compare with them. `batch_size`: UNet samples per run; None: by
    a trial. `base`: the bundle or checkpoint that this one was made from, for the scores that compare with it; opened
    as this one is, it reads prompts by its own tokenizer and text encoder. Pickling keeps what is prepared and leaves
    opened engines behind, so another process opens its own and computes nothing twice.

    >>> model = Model("bundle", backend="cpu", batch_size=16).prepare()
    >>> model.prepared.provider
    'CPUExecutionProvider'
    """

    path: str | Path
    backend: str = "auto"
    precision: str = "auto"
    config: ScanConfig = ScanConfig()  # noqa: RUF009 (frozen)
    reference: tuple[str, ...] = ()
    batch_size: int | None = None
    base: str | Path | None = None
    prepared: Prepared | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, bundle: Bundle, config: ScanConfig = ScanConfig(), batch_size: int | None = None) -> "Model":  # noqa: B008
        """Of a bundle that is open already, as it is in memory."""
        model = cls(bundle.folder, bundle.backend, bundle.precision, config, batch_size=batch_size)
        vars(model)["bundle"] = bundle
        return model

    @cached_property
    def bundle(self) -> Bundle:
        """The verified files, fetched from an object store if need be, and what runs them. Raises EngineError."""
        return open_bundle(here(self.path), self.backend, self.precision)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The opened engines. Raises EngineError or ModelError."""
        return Denoiser(self.bundle, self.batch_size)

    @cached_property
    def base_model(self) -> "Model | None":
        """The base, verified, for the same backend and precision; None without one. Raises EngineError."""
        if self.base is None:
            return None
        bundle = self.bundle
        opened = Model(self.base, bundle.backend, bundle.precision, batch_size=self.batch_size)
        try:
            _ = opened.bundle
        except EngineError as error:
            raise type(error)(f"base model: {error}") from error
        return opened

    @property
    def base_denoiser(self) -> Denoiser | None:
        """The base's opened engines; None without a base. Raises EngineError or ModelError."""
        return None if self.base_model is None else self.base_model.denoiser

    @property
    def passes(self) -> int:
        """UNet passes per prompt."""
        return self.config.passes_with(self.base is not None)

    @property
    def latent_area(self) -> int:
        """Elements of a latent in one channel, with which a pass's price grows. Raises EngineError."""
        return int(np.prod(self.bundle.manifest.latent_shape[1:]))

    @property
    def settled(self) -> ScanConfig:
        """The settings, with what is usual for the model where nothing was asked for. Raises EngineError."""
        manifest = self.bundle.manifest
        told = self.config.settled(usual_timesteps(manifest))
        return replace(told, prior_noises=told.prior_noises or usual_noises(manifest, told.told))

    @property
    def scan_id(self) -> str:
        """Identity of all that the scores depend on, so that scores of different engines never mix."""
        if self.prepared is not None:
            return self.prepared.scan_id
        compared, bundle = captions_fingerprint(self.reference) if self.reference else None, self.bundle
        base = None if self.base_model is None else self.base_model.bundle.manifest.fingerprint
        return self.settled.scan_id(bundle.manifest.fingerprint, bundle.backend, bundle.precision, compared, base)

    def prepare(self, watch: Watch = unwatched) -> "Model":
        """Itself, with backend, precision, timesteps and batch size settled, and all computed that comes first.

        That is a trial of batch sizes, the prior, the reference's predictions and the canaries, before the first
        prompt: 20 to 100 UNet passes and more, of which `watch` hears and which it may end by raising. Trial, prior and
        reference are kept in the cache. Raises ScannerError or EngineError.
        """
        if self.prepared is not None:
            return self
        bundle = self.bundle
        if self.config.first_steps > 1:  # of one step, guidance is but a unit
            self.denoiser.guidance(self.config.guidance_scale)
        if self.base_model is not None:
            check(bundle, self.base_model.bundle, self.settled)
            _ = self.base_model.denoiser  # in memory before the trial of batch sizes, which heeds what is left
        size = fastest(bundle, self.denoiser, watch) if self.batch_size is None else self.batch_size
        settled = self.adapted(backend=bundle.backend, precision=bundle.precision, config=self.settled, batch_size=size)
        samples = max(size, CALL // int(np.prod(bundle.manifest.latent_shape)))
        chunk = max(1, (samples if self.batch_size is None else size) // len(self.config.seeds))
        first, scan_id = settled._baselines(watch), settled.scan_id
        scorer = Scorer(settled.denoiser, settled.config, first, scan_id, chunk, settled.base_denoiser)
        canaries = scorer.canaries(watch)
        prepared = Prepared(scan_id, settled.denoiser.provider, first, chunk, canaries)
        return settled.adapted(prepared=prepared)

    def scorer(self, watch: Watch = unwatched) -> Scorer:
        """What gives prompts their scores; prepares first, where that is not done. Raises as `prepare`."""
        model = self.prepare(watch)
        prepared = model.prepared
        assert prepared is not None
        return Scorer(
            model.denoiser, model.config, prepared.start, prepared.scan_id, prepared.chunk, model.base_denoiser
        )

    def adapted(self, **changes: Any) -> "Model":
        """Itself with other settings, not prepared for them; engines that are open are shared.

        Another path, backend or precision is another `Model`.
        """
        other = replace(self, **{"prepared": None} | changes)
        for name in ("bundle", "denoiser"):
            if name in vars(self):
                vars(other)[name] = vars(self)[name]
        if "denoiser" in vars(other) and other.batch_size is not None:
            vars(other)["denoiser"] = other.denoiser.resized(other.batch_size)
        if other.base == self.base and (base := vars(self).get("base_model")) is not None:
            vars(other)["base_model"] = base.adapted(batch_size=other.batch_size)
        return other

    def close(self) -> None:
        """Let go of opened engines; they open again when needed."""
        for name in ("bundle", "denoiser", "base_model"):
            vars(self).pop(name, None)

    def __getstate__(self) -> Mapping[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def _baselines(self, watch: Watch) -> Start:
        """Where every prompt starts, with what is usual for the model, from the cache where it has been before."""
        denoiser, steps, manifest = self.denoiser, self.config.num_inference_steps, self.bundle.manifest
        told, seeds = self.config.told, PRIOR_SEEDS[: self.config.prior_noises]
        first = start(denoiser, self.config.seeds, steps, told)
        if (base := self.base_denoiser) is not None:
            first = replace(first, base_uncond=predict_base(base, self.config.seeds, steps, told))
        model = (manifest.fingerprint, self.backend, self.precision, str(steps), *map(str, told[:1]))

        def estimates() -> Array:
            return predict_prior(denoiser, steps, watch, told, seeds).x0_uncond

        def ordinary() -> Array:
            return predict_reference(denoiser, self.reference, first, steps, watch).cond

        shape = (len(seeds), *denoiser.latent_shape)
        first = replace(first, prior=Prior(cached("prior", (*model, str(seeds)), shape, estimates)))
        if not self.reference:
            return first
        key = (*model, str(self.config.seeds), captions_fingerprint(self.reference))
        shape = (len(self.reference), *first.x_T.shape)
        return replace(first, reference=Reference(cached("reference", key, shape, ordinary)))
