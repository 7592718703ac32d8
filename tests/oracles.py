"""What a pipeline itself predicts at its first step: its modules, encode_prompt, scheduler and conventions."""

import copy

import numpy as np
import torch

SEEDS = (0, 1)


def noise(latent_shape, seeds=SEEDS):
    """As a scan draws it."""
    draws = [np.random.Generator(np.random.PCG64(seed)).standard_normal(latent_shape, np.float32) for seed in seeds]
    return torch.from_numpy(np.stack(draws))


def stable_diffusion_xl(folder, prompt, latent_shape, pixels, **told):
    """The network's output for the prompt and for none, the latents, sigma: [S, C, H, W] each, at the first of 50."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(50)
    at = scheduler.timesteps[0]
    latents = noise(latent_shape) * scheduler.init_noise_sigma
    with torch.inference_mode():
        cond, uncond, pooled, pooled_uncond = pipeline.encode_prompt(prompt, device="cpu")
        size = told.get("original_size", pixels), told.get("crop", (0, 0)), told.get("target_size", pixels)
        width = pipeline.text_encoder_2.config.projection_dim
        time_ids = pipeline._get_add_time_ids(*size, torch.float32, width).repeat(len(latents), 1)
        x_t = scheduler.scale_model_input(latents, at)

        def output(hidden, text_embeds):
            added = {"text_embeds": text_embeds.repeat(len(latents), 1), "time_ids": time_ids}
            return pipeline.unet(x_t, at, hidden.repeat(len(latents), 1, 1), added_cond_kwargs=added).sample

        return output(cond, pooled), output(uncond, pooled_uncond), latents, scheduler


def stable_diffusion_3(folder, prompt, latent_shape, length=256):
    """As of `stable_diffusion_xl`, of a flow model."""
    from diffusers import StableDiffusion3Pipeline

    absent = {} if (folder / "tokenizer_3").is_dir() else {"text_encoder_3": None, "tokenizer_3": None}
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True, **absent)
    scheduler, latents = pipeline.scheduler, noise(latent_shape)
    tokens = latent_shape[1] * latent_shape[2] // pipeline.patch_size**2
    scheduler.set_timesteps(50, **({"mu": shift(scheduler, tokens, 1.16)} if dynamic(scheduler) else {}))
    with torch.inference_mode():
        cond, uncond, pooled, pooled_uncond = pipeline.encode_prompt(
            prompt, None, None, device="cpu", max_sequence_length=length
        )

        def output(hidden, text):
            text, hidden = text.repeat(len(latents), 1), hidden.repeat(len(latents), 1, 1)
            at = scheduler.timesteps[0].expand(len(latents))
            return pipeline.transformer(latents, hidden, text, at, return_dict=False)[0]

        return output(cond, pooled), output(uncond, pooled_uncond), latents, scheduler


def pixart(folder, prompt, latent_shape, length=None):
    """As of `stable_diffusion_xl`, of the network's prediction of the noise alone."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    scheduler, latents, network = pipeline.scheduler, noise(latent_shape), pipeline.transformer
    scheduler.set_timesteps(50)
    at, N, asked = scheduler.timesteps[0], len(latents), {} if length is None else {"max_sequence_length": length}
    height, width = (side * pipeline.vae_scale_factor for side in latent_shape[1:])
    told = {"resolution": None, "aspect_ratio": None}
    if type(pipeline).__name__ == "PixArtAlphaPipeline" and network.config.sample_size == 128:
        told["resolution"] = torch.tensor([height, width]).repeat(N, 1).to(torch.float32)
        told["aspect_ratio"] = torch.tensor([float(height / width)]).repeat(N, 1)
    with torch.inference_mode():
        cond, mask, uncond, mask_uncond = pipeline.encode_prompt(prompt, device="cpu", **asked)
        x_t = scheduler.scale_model_input(latents * scheduler.init_noise_sigma, at)

        def output(hidden, mask):
            hidden, mask = hidden.repeat(N, 1, 1), mask.repeat(N, 1)
            both = network(x_t, hidden, at.expand(N), told, encoder_attention_mask=mask, return_dict=False)[0]
            return both.chunk(2, dim=1)[0] if network.config.out_channels // 2 == latent_shape[0] else both

        return output(cond, mask), output(uncond, mask_uncond), latents, scheduler


def flux(folder, prompt, latent_shape, length=512, guidance=3.5):
    """As of `stable_diffusion_xl`, of a flow model on packed latents; the second prompt is the empty one."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(folder, local_files_only=True)
    scheduler, latents = pipeline.scheduler, noise(latent_shape)
    (N, C, H, W), pixels = latents.shape, [side * pipeline.vae_scale_factor for side in latent_shape[1:]]
    sigmas = np.linspace(1.0, 1 / 50, 50)
    scheduler.set_timesteps(sigmas=sigmas, mu=shift(scheduler, H * W // 4, 1.15))
    packed = pipeline._pack_latents(latents, N, C, H, W)
    image_ids = pipeline._prepare_latent_image_ids(N, H // 2, W // 2, "cpu", torch.float32)
    told = torch.full([N], guidance) if pipeline.transformer.config.guidance_embeds else None
    with torch.inference_mode():

        def output(text):
            hidden, pooled, text_ids = pipeline.encode_prompt(text, device="cpu", max_sequence_length=length)
            found = pipeline.transformer(
                hidden_states=packed, timestep=scheduler.timesteps[0].expand(N) / 1000, guidance=told,
                pooled_projections=pooled.repeat(N, 1), encoder_hidden_states=hidden.repeat(N, 1, 1), txt_ids=text_ids,
                img_ids=image_ids, return_dict=False,
            )[0]  # fmt: skip
            return pipeline._unpack_latents(found, *pixels, pipeline.vae_scale_factor)

        return output(prompt), output(""), latents, scheduler


def dynamic(scheduler):
    return scheduler.config.use_dynamic_shifting


def shift(scheduler, tokens, most):
    """diffusers' calculate_shift, from its documentation: a line through two sizes."""
    base, largest = scheduler.config.base_shift or 0.5, scheduler.config.max_shift or most
    slope = (largest - base) / (4096 - 256)
    return tokens * slope + base - slope * 256


def clean(output, latents, scheduler):
    """The clean latents that an output means to the scheduler."""
    if hasattr(scheduler, "precondition_outputs"):
        return scheduler.precondition_outputs(latents, output, scheduler.sigmas[0])
    if not hasattr(scheduler, "alphas_cumprod"):  # flow: x_t - sigma * v
        return latents - scheduler.sigmas[0] * output
    once = copy.deepcopy(scheduler)  # it counts its steps
    if hasattr(once, "convert_model_output"):  # DPM-Solver
        once._init_step_index(once.timesteps[0])
        return once.convert_model_output(output, sample=latents)
    return once.step(output, once.timesteps[0], latents).pred_original_sample
